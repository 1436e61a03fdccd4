// A node for tests with a researcher of another make. It says on stdout, a JSON object a line, what happens to it, and obeys
// such lines on stdin; it ends when stdin does.
//
//   node --id ID --researcher HOST:PORT (--cert FILE | --tofu FILE | --plain) [--chunk 1|1000] [--pause MS] [--idle MS]
//
// | it says   | with                             | when                                              |
// |-----------|----------------------------------|---------------------------------------------------|
// | connected |                                  | a poll was answered for the first time            |
// | task      | message                          | a task came; a binary is shown as its size, crc32 |
// | outcome   | of, kind, reason, attempts, text | a reply has ended; `of` is the task's request_id  |
// | log       | level, text                      | ferry logs                                        |
//
// A PingRequest, SearchRequest or ListRequest is answered with the reply of its class. Other tasks are maps with a command:
// error, make (`bytes`), throw, log, scalars, twice, hold, block; any other is echoed. Orders are {"release": request_id},
// {"unblock": n}, {"log": text}, {"send": message}.
#include <ferry/grpc_client.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <limits>
#include <map>
#include <mutex>
#include <semaphore>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using json = nlohmann::json;

void say(const json& line) {
    static std::mutex mutex;
    const auto text = line.dump(-1, ' ', false, json::error_handler_t::replace);
    const std::lock_guard lock(mutex);
    std::cout << text << std::endl;
}

/// As zlib computes it.
std::uint32_t crc32(const ferry::bytes& of) {
    std::uint32_t crc = ~0U;
    for (std::size_t i = 0; i < of.size(); ++i) {
        crc ^= of.data()[i];
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xedb88320U & (0U - (crc & 1U)));
    }
    return ~crc;
}

json readable(const ferry::message& m) {
    if (m.is_binary()) return {{"size", m.get_binary().size()}, {"crc32", crc32(m.get_binary())}};
    if (!m.is_structured()) return json::parse(m.dump(-1, ' ', false, ferry::message::error_handler_t::replace));
    json out = m.is_object() ? json::object() : json::array();
    for (const auto& [key, value] : m.items())
        m.is_object() ? out[key] = readable(value) : out.emplace_back(readable(value));
    return out;
}

/// Byte i is the top byte of i * 2654435761, modulo 2^32.
ferry::bytes pattern(std::size_t size) {
    std::vector<std::uint8_t> out(size);
    for (std::size_t i = 0; i < size; ++i) {
        out[i] = static_cast<std::uint8_t>((static_cast<std::uint32_t>(i) * 2654435761U) >> 24);
    }
    return ferry::bytes::own(std::move(out));
}

ferry::scalars some_scalars() {
    ferry::scalars out;
    out.node_name = "a node's name";
    out.experiment_id = "experiment-1";
    out.train = out.test_on_global_updates = true;
    out.metric = {{"accuracy", 0.75F}, {"loss", 0.5F}};
    out.epoch = 0;
    out.total_samples = 100;
    out.batch_samples = 20;
    out.num_batches = 5;
    out.num_samples_trained = 40;
    out.iteration = 2;
    return out;
}

class worker {
public:
    void handle(const ferry::task& task) {
        const auto& message = task.message();
        const auto command = kind_of(message);
        if (command == "hold") {  // before it is said: then it may be released
            const std::lock_guard lock(mutex_);
            held_.emplace(message.at("request_id").get<std::string>(), task);
        }
        say({{"event", "task"}, {"message", readable(message)}});
        if (command == "hold") return;
        if (command == "throw") throw std::runtime_error(message.value("text", "thrown"));
        if (command == "log") task.log("INFO", message.value("text", "a line"));
        if (command == "scalars") task.send(some_scalars());
        if (command == "block") unblocked_.acquire();
        answer(task);
        if (command == "twice") answer(task);
    }

    void release(const std::string& request_id) {
        std::unique_lock lock(mutex_);
        const auto held = held_.extract(request_id);
        lock.unlock();
        if (held) answer(held.mapped());
    }

    void unblock(std::ptrdiff_t callbacks) { unblocked_.release(callbacks); }

private:
    static std::string kind_of(const ferry::message& message) {
        const auto type = message.find("__type_message__");
        return type != message.end() ? type->at("class").get<std::string>() : message.value("command", "");
    }

    static void answer(const ferry::task& task) {
        const auto id = task.message().value("request_id", "");
        task.reply(answer_to(task.message())).on_done([id](const ferry::outcome& how) {
            say({{"event", "outcome"},
                 {"of", id},
                 {"kind", to_string(how.kind)},
                 {"reason", to_string(how.reason)},
                 {"attempts", how.attempts},
                 {"text", how.text}});
        });
    }

    /// ferry adds `request_id` and `node_id`.
    static ferry::message answer_to(const ferry::message& message) {
        const auto of_class = [&](const char* name, ferry::message fields) {
            fields["protocol_version"] = "7";
            fields["researcher_id"] = message.value("researcher_id", "");
            fields["__type_message__"] = {{"module", "fedbiomed.common.message"}, {"class", name}};
            fields["node_name"] = "a node's name";
            return fields;
        };
        const auto kind = kind_of(message);
        if (kind == "PingRequest") return of_class("PingReply", ferry::message::object());
        if (kind == "SearchRequest") {
            const auto& tags = message.at("tags");
            return of_class("SearchReply", {{"databases", {{{"tags", tags}}}}, {"count", 1}});
        }
        if (kind == "ListRequest") {
            return of_class("ListReply", {{"success", true}, {"databases", ferry::message::array()}, {"count", 0}});
        }
        if (kind == "error") {
            return of_class("ErrorMessage", {{"extra_msg", message.at("text")}, {"errnum", message.at("errnum")}});
        }
        if (const auto size = message.find("bytes"); size != message.end()) {
            return {{"payload", pattern(size->get<std::size_t>())}};
        }
        return message;
    }

    std::mutex mutex_;
    std::map<std::string, ferry::task> held_;
    std::counting_semaphore<> unblocked_{0};
};

/// The options, and what to cut replies into.
std::pair<ferry::client_options, std::string> read(int argc, char** argv) {
    std::pair<ferry::client_options, std::string> out;
    auto& [options, chunk] = out;
    ferry::server_trust trust;
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        const auto value = [&] {
            return ++i < argc ? std::string(argv[i]) : throw std::runtime_error(name + " what?");
        };
        if (name == "--id") {
            options.node_id = value();
        } else if (name == "--researcher") {
            const auto target = value();
            const auto colon = target.rfind(':');
            options.researchers.push_back(
                {target.substr(0, colon), static_cast<std::uint16_t>(std::stoul(target.substr(colon + 1)))});
        } else if (name == "--cert") {
            trust = ferry::pinned_certificate{value()};
        } else if (name == "--tofu") {
            trust = ferry::trust_on_first_use{value()};
        } else if (name == "--plain") {
            trust = ferry::plain_text{};
        } else if (name == "--chunk") {
            chunk = value();
        } else if (name == "--pause") {
            const std::chrono::milliseconds pause(std::stol(value()));
            options.limits.reconnect = {pause, 2, 10 * pause};
            options.limits.refused_pause = pause;
        } else if (name == "--idle") {
            options.limits.idle_limit = std::chrono::milliseconds(std::stol(value()));
        } else {
            throw std::runtime_error("there is no option " + name);
        }
    }
    for (auto& each : options.researchers) each.trust = trust;
    options.stop_deadline = std::chrono::milliseconds(500);
    options.log = [](ferry::log_level level, const std::string& text) {
        static constexpr const char* names[] = {"debug", "info", "warning"};
        say({{"event", "log"}, {"level", names[static_cast<int>(level)]}, {"text", text}});
    };
    return out;
}

template <class... Policies>
void run(const ferry::client_options& options) {
    worker work;
    ferry::basic_grpc_client<Policies...> client(options, [&](const ferry::task& task) { work.handle(task); });
    client.start();
    const std::jthread watch([&](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            if (client.wait_connected(std::chrono::milliseconds(100))) return say({{"event", "connected"}});
        }
    });
    for (std::string line; std::getline(std::cin, line);) {
        const auto order = json::parse(line);
        if (order.contains("release")) work.release(order["release"]);
        if (order.contains("unblock")) work.unblock(order["unblock"]);
        if (order.contains("log")) client.log("WARNING", order["log"]);
        if (order.contains("send")) client.send(ferry::message::parse(order["send"].dump()));
    }
    work.unblock(std::numeric_limits<std::int16_t>::max());
    client.stop();
}

}  // namespace

int main(int argc, char** argv) try {
    const auto [options, chunk] = read(argc, argv);
    if (chunk == "1") {
        run<ferry::max_message_bytes_length<1>>(options);
    } else if (chunk == "1000") {
        run<ferry::max_message_bytes_length<1000>>(options);
    } else {
        run<>(options);
    }
    return EXIT_SUCCESS;
} catch (const std::exception& e) {
    std::fprintf(stderr, "node: %s\n", e.what());
    return EXIT_FAILURE;
}
