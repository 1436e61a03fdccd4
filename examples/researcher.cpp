// The researcher of the main job: it trains a model over the nodes' shards by federated averaging, without seeing their
// rows; then every node gets a large payload and sends one back. node.cpp lists the commands. With a store that lasts it may
// be killed at any moment: started again, it goes on where it was.
#include <ferry/ferry.hpp>
#include <ferry/malloc.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "binary.hpp"
#include "chosen_store.hpp"
#include "data_set.hpp"
#include "exchange_watch.hpp"
#include "feedback_board.hpp"
#include "logistic_regression.hpp"
#include "peak_memory.hpp"

namespace {

using namespace std::chrono_literals;

constexpr int steps_a_round = 10;
constexpr double rate = 0.3;
constexpr double least_accuracy = 0.95;
constexpr double largest_gap = 0.02;

struct settings {
    std::string host = "localhost";
    std::uint16_t port = 50051;
    std::string port_file;
    std::string key, cert;
    std::string store = "memory";
    std::string checkpoint;
    std::string data = "examples/data/breast_cancer.csv";
    std::size_t nodes = 4;
    int rounds = 20;
    std::size_t payload_mb = 256;
    std::size_t reply_mb = 64;
    int patience = 300;
    std::string tell_node, tell_file;
};

/// Whole at once, so that whoever reads the file reads all of it.
void write_file(const std::string& path, std::string_view text) {
    std::ofstream(path + ".new", std::ios::binary) << text;
    if (std::rename((path + ".new").c_str(), path.c_str()) != 0)
        throw std::runtime_error(path + ": the file can't be written");
}

/// Nothing where there is no such file.
std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// What a node answered. Throws `std::runtime_error` where it did not, or reported an error.
ferry::message answer_of(const ferry::reply& reply) {
    if (!reply)
        throw std::runtime_error(reply.node + ": " + std::string(to_string(reply.how.kind)) + ": " + reply.how.text);
    if (const auto problem = reply.message.find("error"); problem != reply.message.end())
        throw std::runtime_error(reply.node + " reports: " + problem->get<std::string>());
    return reply.message;
}

template <class Store>
class main_job {
public:
    main_job(const settings& given, Store store)
        : given_(given), all_(example::read_csv(given.data)), server_(options_of(given, board_), std::move(store)) {
        patience_.reply_within = std::chrono::seconds(given.patience);
    }

    void wait_for_nodes() {
        server_.start();
        if (!given_.port_file.empty()) write_file(given_.port_file, std::to_string(server_.port()) + "\n");
        if (const auto open = server_.pending(); !open.empty())
            std::printf("%zu task%s of the run before %s still open\n", open.size(), open.size() == 1 ? "" : "s",
                        open.size() == 1 ? "is" : "are");
        std::printf("Researcher on %s:%u, over TLS; waiting for %zu node%s\n", given_.host.c_str(),
                    unsigned{server_.port()}, given_.nodes, given_.nodes == 1 ? "" : "s");
        std::fflush(stdout);
        const bool here = server_.wait_for_nodes(given_.nodes, *patience_.reply_within);
        for (const auto& node : server_.get_all_nodes()) {
            if (node.status != ferry::node_status::disconnected) nodes_.push_back(node.id);
        }
        if (!here)
            throw std::runtime_error("only " + std::to_string(nodes_.size()) + " of " + std::to_string(given_.nodes) +
                                     " nodes came within " + std::to_string(given_.patience) + " s");
        std::sort(nodes_.begin(), nodes_.end());
    }

    /// Each node sends the sums over its shard, and gets the mean and deviation over all shards.
    void scale_features() {
        example::feature_sums sums(all_.features);
        for (const ferry::message& answer : ask({{"command", "statistics"}})) {
            const auto add = [&](example::numbers& to, const char* name) {
                const auto part = example::to_numbers(answer.at(name).get<ferry::bytes>(), to.size());
                for (std::size_t k = 0; k < to.size(); ++k) to[k] += part[k];
            };
            sums.count += answer.at("count").get<std::size_t>();
            add(sums.sum, "sum");
            add(sums.sum_of_squares, "sum_of_squares");
        }
        if (sums.count == 0) throw std::runtime_error("the nodes have no rows");
        auto lines = board_.take_lines(nodes_.size(), 1s);
        std::sort(lines.begin(), lines.end(),
                  [](const auto& a, const auto& b) { return a.what.node_id < b.what.node_id; });
        for (const auto& line : lines) std::printf("  %s: %s\n", line.what.node_id.c_str(), line.what.message.c_str());

        const example::feature_scaling scaling(sums);
        auto deliveries = server_.broadcast({{"command", "scale"},
                                             {"mean", example::to_bytes(scaling.mean)},
                                             {"deviation", example::to_bytes(scaling.deviation)}});
        for (const auto& delivery : deliveries) {
            if (const auto how = delivery.wait(); !how)
                throw std::runtime_error(delivery.node() + ": " + std::string(to_string(how.kind)) + ": " + how.text);
        }
        held_out_ = scaling(example::held_out_rows(all_));
        training_ = scaling(example::training_rows(all_));
    }

    /// Throws `std::runtime_error` where the model is not good, or not as good as one trained on all rows at once.
    void train() {
        std::printf("\nFederated averaging of a logistic regression, %d rounds of %d steps, %zu rows held out\n\n",
                    given_.rounds, steps_a_round, held_out_.rows());
        std::printf("  round   training loss   held-out loss   held-out accuracy\n");
        auto [done, weights] = read_checkpoint();
        for (int round = done + 1; round <= given_.rounds; ++round) {
            weights = average(ask({{"request_id", "train " + std::to_string(round)},
                                   {"command", "train"},
                                   {"round", round},
                                   {"weights", example::to_bytes(weights)},
                                   {"steps", steps_a_round},
                                   {"rate", rate}}));
            std::printf("  %5d   %13s   %13.4f   %17.4f\n", round, training_loss(round).c_str(),
                        example::loss(held_out_, weights), example::accuracy(held_out_, weights));
            std::fflush(stdout);
            write_checkpoint(round, weights);
        }

        example::numbers at_once(all_.features + 1);
        example::descend(training_, at_once, given_.rounds * steps_a_round, rate);
        const double federated = example::accuracy(held_out_, weights);
        const double central = example::accuracy(held_out_, at_once);
        std::printf("\n  held-out accuracy: %.4f federated, %.4f trained on all %zu rows at once (%d steps)\n",
                    federated, central, training_.rows(), given_.rounds * steps_a_round);
        if (federated < least_accuracy || std::abs(federated - central) > largest_gap)
            throw std::runtime_error(
                "the accuracy must be at least 0.95 and within 0.02 of training on all rows at once");
    }

    /// Throws `std::runtime_error` unless every byte arrives, both ways.
    void exchange() {
        const auto payload = example::random_megabytes(given_.payload_mb, "researcher");
        const auto sha256 = example::sha256(payload);
        std::printf("\nBroadcast of %zu MB, answered with %zu MB (1 MB = 1,048,576 bytes)\n", given_.payload_mb,
                    given_.reply_mb);
        if (!given_.tell_node.empty())
            std::printf("In mid-transfer %s is killed (SIGKILL), and started again\n", given_.tell_node.c_str());
        std::printf("\n");
        std::fflush(stdout);

        example::exchange_watch watch(board_);
        const auto requests = server_.request(
            {{"command", "exchange"}, {"payload", payload}, {"reply_mb", given_.reply_mb}}, nodes_, patience_);
        const auto teller = tell_of_transfer(requests);
        watch.follow(requests);
        for (const auto& request : requests) {
            const auto reply = request.get();
            const ferry::message answer = answer_of(reply);
            const auto received = answer.at("payload").get<ferry::bytes>();
            if (answer.at("sha256_of_received") != sha256)
                throw std::runtime_error(request.node() + " got other bytes than were sent");
            if (received.size() != given_.reply_mb * example::megabyte ||
                answer.at("sha256") != example::sha256(received))
                throw std::runtime_error(request.node() + " sent other bytes than came");
            if (reply.how.attempts > 1)
                std::printf("\n  %s has it by delivery %d: it was lost in mid-transfer before\n",
                            request.node().c_str(), reply.how.attempts);
            else if (request.node() == given_.tell_node)
                throw std::runtime_error(request.node() + " was to be disturbed, and got it by the first delivery");
        }
        std::printf("\n  all arrived: %zu x %zu bytes down, %zu x %zu bytes up; each SHA-256 agrees\n", nodes_.size(),
                    payload.size(), nodes_.size(), given_.reply_mb * example::megabyte);
        print_rate("down", given_.payload_mb, watch.down(), "from the request until the last node has it all");
        print_rate("up", given_.reply_mb, watch.up(), "from the first reply's start until the last is here");
    }

    void say_goodbye() {
        const std::vector<ferry::message> answers = ask({{"command", "bye"}});
        std::printf("\n  peak memory  researcher  %4.0f MB\n", example::to_megabytes(example::peak_memory()));
        for (std::size_t i = 0; i < nodes_.size(); ++i)
            std::printf("               %-10s  %4.0f MB\n", nodes_[i].c_str(),
                        example::to_megabytes(answers[i].at("peak_memory").get<std::uint64_t>()));
    }

private:
    static ferry::server_options options_of(const settings& given, example::feedback_board& board) {
        ferry::server_options options;
        options.host = given.host;
        options.port = given.port;
        options.ssl = ferry::ssl_credentials{given.key, given.cert};
        options.on_message = [&board](const ferry::feedback& from) { board.put(from); };
        options.wait_for_first_node = false;  // they are waited for by number, once the port is told
        return options;
    }

    /// Once a part of the payload of the node in question is out, its name goes to the file: whoever waits there can
    /// disturb the node in mid-transfer.
    std::jthread tell_of_transfer(const std::vector<ferry::request_handle>& requests) const {
        if (given_.tell_node.empty()) return {};
        return std::jthread([&requests, node = given_.tell_node, file = given_.tell_file] {
            for (const auto& request : requests) {
                if (request.node() != node) continue;
                while (request.sent_bytes() == 0 && !request.wait_for(1ms)) {
                }
                std::ofstream(file) << node << std::endl;
            }
        });
    }

    /// The last round that is done, and its weights.
    std::pair<int, example::numbers> read_checkpoint() const {
        const auto text = given_.checkpoint.empty() ? std::string() : read_file(given_.checkpoint);
        if (text.empty()) return {0, example::numbers(all_.features + 1)};
        const auto kept = ferry::msgpack_serializer<>().decode(ferry::bytes::copy(text));
        std::printf("  (%d rounds are done already)\n", kept.at("round").get<int>());
        return {kept.at("round").get<int>(),
                example::to_numbers(kept.at("weights").get<ferry::bytes>(), all_.features + 1)};
    }

    void write_checkpoint(int round, const example::numbers& weights) const {
        if (given_.checkpoint.empty()) return;
        const ferry::message kept{{"round", round}, {"weights", example::to_bytes(weights)}};
        write_file(given_.checkpoint, ferry::msgpack_serializer<>().encode(kept).flatten().view());
    }

    /// All nodes' answers, in the nodes' order. Where the task has a request id and was asked for by a run before, that is
    /// gone on with.
    std::vector<ferry::message> ask(ferry::message task) {
        std::vector<ferry::message> answers;
        for (const auto& request : server_.request(std::move(task), nodes_, patience_))
            answers.push_back(answer_of(request.get()));
        return answers;
    }

    /// By the number of rows that each was trained on.
    example::numbers average(const std::vector<ferry::message>& answers) const {
        example::numbers sum(all_.features + 1);
        double all_rows = 0;
        for (const auto& answer : answers) {
            const auto rows = answer.at("rows").get<double>();
            const auto weights = example::to_numbers(answer.at("weights").get<ferry::bytes>(), sum.size());
            for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += rows * weights[k];
            all_rows += rows;
        }
        for (auto& weight : sum) weight /= all_rows;
        return sum;
    }

    /// The mean of what the nodes reported beside their replies.
    std::string training_loss(int round) {
        double sum = 0, rows = 0;
        for (const auto& [metrics, when] : board_.take_metrics(nodes_.size(), 1s)) {
            const auto loss = metrics.metric.find("loss");
            if (metrics.iteration != round || loss == metrics.metric.end()) continue;
            sum += static_cast<double>(loss->second) * metrics.total_samples;
            rows += metrics.total_samples;
        }
        char text[32];
        std::snprintf(text, sizeof text, "%.4f", sum / rows);
        return rows > 0 ? text : "-";
    }

    void print_rate(const char* direction, std::size_t megabytes_each, std::chrono::duration<double> time,
                    const char* measured) const {
        const double all = static_cast<double>(megabytes_each * nodes_.size());
        std::printf("  %-4s  %5.0f MB in %5.2f s: %5.0f MB/s  (%s)\n", direction, all, time.count(), all / time.count(),
                    measured);
    }

    settings given_;
    example::data_set all_, held_out_, training_;
    example::feedback_board board_;  // outlives the server, which calls it
    ferry::basic_grpc_server<Store> server_;
    ferry::send_options patience_;
    std::vector<std::string> nodes_;
};

}  // namespace

int main(int argc, char** argv) {
    ferry::return_unused_memory();  // large payloads come seldom: what they used is given back
    settings given;
    CLI::App app{
        "The researcher of ferry's main job: federated averaging over the nodes, then a large payload both ways."};
    app.option_defaults()->always_capture_default();
    app.add_option("--host", given.host, "The name or address to listen on; 0.0.0.0 is all of IPv4");
    app.add_option("--port", given.port, "The port to listen on; 0 is any free one");
    app.add_option("--port-file", given.port_file, "A file to write the port to, once nodes can connect");
    app.add_option("--key", given.key, "The private key (PEM)")->required()->check(CLI::ExistingFile);
    app.add_option("--cert", given.cert, "The certificate (PEM)")->required()->check(CLI::ExistingFile);
    app.add_option(
        "--store", given.store,
        "Where tasks are kept until they are done: memory, sqlite:FILE, redis:HOST:PORT or redis:/path/of/socket");
    app.add_option("--checkpoint", given.checkpoint, "A file that keeps the model after each round, to go on from");
    app.add_option("--data", given.data, "The rows, as csv; those held out are kept here");
    app.add_option("--nodes", given.nodes, "How many nodes to wait for")->check(CLI::Range(1, 10'000));
    app.add_option("--rounds", given.rounds, "Rounds of federated averaging")->check(CLI::Range(1, 10'000));
    app.add_option("--payload-mb", given.payload_mb, "What each node is sent, in MB")->check(CLI::Range(1, 4095));
    app.add_option("--reply-mb", given.reply_mb, "What each node sends back, in MB")->check(CLI::Range(1, 4095));
    app.add_option("--patience", given.patience, "How long to wait for nodes, and for each reply, in seconds")
        ->check(CLI::Range(1, 86'400));
    auto* tell_node = app.add_option("--tell-of", given.tell_node,
                                     "A node that will be disturbed while its payload is on its way: see --tell-to");
    app.add_option("--tell-to", given.tell_file, "The file (a FIFO, say) to write that node's name to, just then")
        ->needs(tell_node);
    CLI11_PARSE(app, argc, argv);

    try {
        example::with_store(given.store, [&](auto store) {
            main_job job(given, std::move(store));
            job.wait_for_nodes();
            job.scale_features();
            job.train();
            job.exchange();
            job.say_goodbye();
        });
    } catch (const std::exception& e) {
        std::fflush(stdout);
        std::fprintf(stderr, "error: %s\n", e.what());
        return 1;
    }
    return 0;
}
