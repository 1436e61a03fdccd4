// A ferry server that a program of another make drives, for tests: its options are a JSON object, the one argument; then
// JSON lines come in on stdin and go out on stdout. It ends when stdin does.
//
//   commands: send, request, broadcast {id, node, message or again, reply_within}; nodes; hold, release; stop {within}
//   events:   started {port}; ended {id, node, kind, reason, text, attempts, sent, total, message}; reply {node, message};
//             log_line, scalars; nodes; stopped; log {level, text}; error {reason, text}; failed {text}
//
// `message` is JSON, in which a binary is {"file": path}; those of replies are written into the options' `folder`. `again`
// sends the last reply that came. Between hold and release the handler of feedback blocks.
#include <ferry/grpc_server.hpp>

#include <nlohmann/json.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <fstream>
#include <ios>
#include <iostream>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace {

using nlohmann::json;
using std::chrono::milliseconds;

void report(const json& event) {
    static std::mutex one_writer;
    const auto line = event.dump(-1, ' ', false, json::error_handler_t::replace);
    const std::lock_guard lock(one_writer);
    std::cout << line << std::endl;
}

// --- messages as JSON --------------------------------------------------------------------------------------------------

json to_view(const ferry::message& m, const std::string& folder) {
    static std::atomic<int> files = 0;
    switch (m.type()) {
        case ferry::message::value_t::binary: {
            const auto run = m.get<ferry::bytes>();
            const auto path = folder + "/binary-" + std::to_string(++files);
            std::ofstream(path, std::ios::binary)
                .write(reinterpret_cast<const char*>(run.data()), static_cast<std::streamsize>(run.size()));
            return {{"file", path}};
        }
        case ferry::message::value_t::array: {
            auto out = json::array();
            for (const auto& item : m) out.push_back(to_view(item, folder));
            return out;
        }
        case ferry::message::value_t::object: {
            auto out = json::object();
            for (const auto& [key, value] : m.items()) out[key] = to_view(value, folder);
            return out;
        }
        default: return json::parse(m.dump());
    }
}

ferry::message from_view(const json& view) {
    ferry::message out;
    if (view.is_object() && view.size() == 1 && view.contains("file")) {
        out = ferry::bytes::map_file(view.at("file").get<std::string>());
    } else if (view.is_object()) {
        out = ferry::message::object();
        for (const auto& [key, value] : view.items()) out[key] = from_view(value);
    } else if (view.is_array()) {
        out = ferry::message::array();
        for (const auto& item : view) out.push_back(from_view(item));
    } else {
        out = ferry::message::parse(view.dump());
    }
    return out;
}

// --- feedback ----------------------------------------------------------------------------------------------------------

json to_event(const ferry::log_line& line) {
    return {{"event", "log_line"}, {"node_id", line.node_id}, {"level", line.level}, {"message", line.message}};
}

json to_event(const ferry::scalars& s) {
    const auto number = [](const std::optional<std::int32_t>& n) { return n ? json(*n) : json(); };
    return {{"event", "scalars"},
            {"node_id", s.node_id},
            {"node_name", s.node_name},
            {"experiment_id", s.experiment_id},
            {"train", s.train},
            {"test", s.test},
            {"test_on_local_updates", s.test_on_local_updates},
            {"test_on_global_updates", s.test_on_global_updates},
            {"metric", s.metric},
            {"epoch", number(s.epoch)},
            {"total_samples", s.total_samples},
            {"batch_samples", s.batch_samples},
            {"num_batches", s.num_batches},
            {"num_samples_trained", number(s.num_samples_trained)},
            {"iteration", s.iteration}};
}

// --- the server --------------------------------------------------------------------------------------------------------

/// Carries out commands until stdin ends.
template <class... Policies>
class driven_server {
public:
    driven_server(ferry::server_options options, std::string folder)
        : folder_(std::move(folder)), server_(with_handlers(std::move(options))) {
        server_.on_unclaimed_reply([this](const ferry::reply& reply) {
            keep(reply.message);
            report({{"event", "reply"}, {"node", reply.node}, {"message", to_view(reply.message, folder_)}});
        });
    }

    void run() {
        server_.start();
        report({{"event", "started"}, {"port", server_.port()}});
        for (std::string line; std::getline(std::cin, line);) {
            const auto command = json::parse(line);
            try {
                perform(command, command.at("do").get<std::string>());
            } catch (const ferry::error& e) {
                report({{"event", "error"}, {"reason", ferry::to_string(e.code())}, {"text", e.what()}});
            }
        }
        if (hold_) hold_.unlock();
        server_.stop(milliseconds(100));
    }

private:
    void perform(const json& command, const std::string& what) {
        if (what == "send") {
            watch(command, server_.send(message_of(command), command.at("node"), how(command)));
        } else if (what == "broadcast") {
            for (auto& each : server_.broadcast(message_of(command), how(command))) watch(command, each);
        } else if (what == "request") {
            auto request = server_.request(message_of(command), command.at("node").get<std::string>(), how(command));
            request.on_reply([this, request, id = command.at("id")](const ferry::reply& reply) {
                auto event = ended(id, request, reply.how);
                if (reply) {
                    keep(reply.message);
                    event["message"] = to_view(reply.message, folder_);
                }
                report(event);
            });
        } else if (what == "nodes") {
            auto nodes = json::object();
            for (const auto& node : server_.get_all_nodes()) {
                nodes[node.id] = {{"status", ferry::to_string(node.status)},
                                  {"queued_tasks", node.queued_tasks},
                                  {"open_requests", node.open_requests}};
            }
            report({{"event", "nodes"}, {"nodes", nodes}});
        } else if (what == "hold" || what == "release") {
            what == "hold" ? hold_.lock() : hold_.unlock();
        } else if (what == "stop") {
            server_.stop(milliseconds(command.at("within").get<int>()));
            report({{"event", "stopped"}});
        } else {
            throw ferry::error(ferry::errc::invalid_argument, "no such command: " + what);
        }
    }

    ferry::server_options with_handlers(ferry::server_options options) {
        options.on_message = [this](const ferry::feedback& from) {
            report(std::visit([](const auto& each) { return to_event(each); }, from));
            const std::lock_guard passes(held_);
        };
        options.log = [](ferry::log_level level, const std::string& text) {
            static constexpr const char* names[] = {"debug", "info", "warning"};
            report({{"event", "log"}, {"level", names[static_cast<int>(level)]}, {"text", text}});
        };
        return options;
    }

    ferry::message message_of(const json& command) {
        if (!command.contains("again")) return from_view(command.at("message"));
        const std::lock_guard lock(mutex_);
        return last_reply_;
    }

    static ferry::send_options how(const json& command) {
        ferry::send_options options;
        if (command.contains("reply_within"))
            options.reply_within = milliseconds(command.at("reply_within").get<int>());
        return options;
    }

    void watch(const json& command, ferry::delivery of) {
        of.on_done([of, id = command.at("id")](const ferry::outcome& how) { report(ended(id, of, how)); });
    }

    static json ended(const json& id, const ferry::delivery& of, const ferry::outcome& how) {
        return {{"event", "ended"},         {"id", id},
                {"node", of.node()},        {"kind", ferry::to_string(how.kind)},
                {"text", how.text},         {"reason", ferry::to_string(how.reason)},
                {"attempts", how.attempts}, {"sent", of.sent_bytes()},
                {"total", of.total_bytes()}};
    }

    void keep(const ferry::message& reply) {
        const std::lock_guard lock(mutex_);
        last_reply_ = reply;
    }

    const std::string folder_;
    std::mutex held_;
    std::unique_lock<std::mutex> hold_{held_, std::defer_lock};
    std::mutex mutex_;
    ferry::message last_reply_;
    ferry::basic_grpc_server<Policies...> server_;
};

void serve(const json& given) {
    ferry::server_options options;
    options.host = given.value("host", options.host);
    options.port = given.value("port", std::uint16_t{0});
    options.ssl = ferry::ssl_credentials{given.at("key"), given.at("cert")};
    options.wait_for_first_node = false;
    options.limits.disconnect_after = milliseconds(given.value("disconnect_after", 10'000));
    options.limits.idle_limit = milliseconds(given.value("idle_limit", 60'000));
    options.replies.max_payload_bytes = given.value("reply_limit", options.replies.max_payload_bytes);
    const std::string folder = given.at("folder");
    switch (given.value("chunk", 0)) {
        case 0: return driven_server<>(options, folder).run();
        case 1: return driven_server<ferry::max_message_bytes_length<1>>(options, folder).run();
        case 1000: return driven_server<ferry::max_message_bytes_length<1000>>(options, folder).run();
        case 4'000'000: return driven_server<ferry::max_message_bytes_length<4'000'000>>(options, folder).run();
        default: throw ferry::error(ferry::errc::invalid_argument, "chunk: 1, 1000, 4000000 or none");
    }
}

}  // namespace

int main(int argc, char** argv) {
    try {
        serve(json::parse(argc == 2 ? argv[1] : ""));
    } catch (const std::exception& e) {
        report({{"event", "failed"}, {"text", e.what()}});
        return 1;
    }
}
