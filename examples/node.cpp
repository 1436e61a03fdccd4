// A node of the main job: it holds a shard of the data, and no row of it leaves the node.
//
// A task is a map with a command. The answer is a map too, and holds "error" where the task went wrong.
//
// | command    | comes with                  | is answered with                                                 |
// |------------|-----------------------------|------------------------------------------------------------------|
// | statistics |                             | count, sum, sum_of_squares (of each feature)                     |
// | scale      | mean, deviation             | (sent to all, not answered)                                      |
// | train      | round, weights, steps, rate | rows, weights                                                    |
// | exchange   | payload, reply_mb           | sha256_of_received, payload, sha256 (of the payload that it has) |
// | bye        |                             | peak_memory; then the node ends                                  |
#include <ferry/ferry.hpp>
#include <ferry/malloc.hpp>

#include <CLI/CLI.hpp>

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "binary.hpp"
#include "data_set.hpp"
#include "logistic_regression.hpp"
#include "peak_memory.hpp"

namespace {

/// Carries out the tasks of one researcher, which come one at a time.
class worker {
public:
    worker(std::string id, example::data_set shard) : id_(std::move(id)), shard_(std::move(shard)) {}

    void handle(const ferry::task& task) {
        ferry::message answer;
        try {
            answer = carry_out(task);
        } catch (const std::exception& e) {
            task.log("ERROR", e.what());
            answer = {{"error", e.what()}};
        }
        if (answer.is_null()) return;
        const bool last = answer.contains("peak_memory");
        task.reply(std::move(answer)).on_done([id = id_](const ferry::outcome& how) {
            if (!how) std::fprintf(stderr, "%s: a reply did not arrive: %s\n", id.c_str(), how.text.c_str());
        });
        if (!last) return;
        finished_.test_and_set();
        finished_.notify_all();
    }

    void wait_for_bye() const { finished_.wait(false); }

private:
    ferry::message carry_out(const ferry::task& task) {
        const auto& what = task.message();
        const auto command = what.at("command").get<std::string>();
        std::printf("%s: %s%s\n", id_.c_str(), command.c_str(),
                    what.contains("round") ? (", round " + what.at("round").dump()).c_str() : "");
        std::fflush(stdout);
        if (command == "statistics") return statistics(task);
        if (command == "scale") return scale(what);
        if (command == "train") return train(task);
        if (command == "exchange") return exchange(task);
        if (command == "bye") return {{"peak_memory", example::peak_memory()}};
        throw std::runtime_error("there is no command \"" + command + "\"");
    }

    ferry::message statistics(const ferry::task& task) const {
        task.log("INFO", std::to_string(shard_.rows()) + " rows of " + std::to_string(shard_.features) + " features");
        example::feature_sums sums(shard_);
        return {{"count", sums.count},
                {"sum", example::to_bytes(std::move(sums.sum))},
                {"sum_of_squares", example::to_bytes(std::move(sums.sum_of_squares))}};
    }

    ferry::message scale(const ferry::message& what) {
        example::feature_scaling scaling;
        scaling.mean = example::to_numbers(what.at("mean").get<ferry::bytes>(), shard_.features);
        scaling.deviation = example::to_numbers(what.at("deviation").get<ferry::bytes>(), shard_.features);
        scaled_ = scaling(shard_);
        return nullptr;
    }

    ferry::message train(const ferry::task& task) const {
        const auto& what = task.message();
        if (scaled_.rows() == 0) throw std::runtime_error("the features must be scaled before the training");
        auto weights = example::to_numbers(what.at("weights").get<ferry::bytes>(), shard_.features + 1);
        example::descend(scaled_, weights, what.at("steps").get<int>(), what.at("rate").get<double>());

        ferry::scalars metrics;
        metrics.experiment_id = "training";
        metrics.train = true;
        metrics.iteration = what.at("round").get<std::int32_t>();
        metrics.total_samples = static_cast<std::int32_t>(scaled_.rows());
        metrics.metric["loss"] = static_cast<float>(example::loss(scaled_, weights));
        task.send(metrics);

        return {{"rows", scaled_.rows()}, {"weights", example::to_bytes(std::move(weights))}};
    }

    /// Tells when it has the payload and when it begins to reply, so that the researcher can take the time.
    ferry::message exchange(const ferry::task& task) const {
        const auto& what = task.message();
        send_stage(task, "received");
        const auto sha256_of_received = example::sha256(what.at("payload").get<ferry::bytes>());
        const auto own = example::random_megabytes(what.at("reply_mb").get<std::size_t>(), id_);
        ferry::message answer{
            {"sha256_of_received", sha256_of_received}, {"payload", own}, {"sha256", example::sha256(own)}};
        send_stage(task, "replying");
        return answer;
    }

    static void send_stage(const ferry::task& task, const std::string& stage) {
        ferry::scalars metrics;
        metrics.experiment_id = "exchange";
        metrics.metric[stage] = 1;
        task.send(metrics);
    }

    std::string id_;
    example::data_set shard_, scaled_;
    std::atomic_flag finished_;
};

struct settings {
    std::string id;
    std::string researcher = "localhost:50051";
    std::string cert;
    std::string trust_on_first_use;
    std::string shard = "1/1";
    std::string data = "examples/data/breast_cancer.csv";
};

template <class Number>
bool parse(std::string_view text, Number& number) {
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
    return code == std::errc{} && end == text.data() + text.size();
}

ferry::researcher_address researcher_of(const settings& given) {
    ferry::researcher_address address;
    const std::string_view text = given.researcher;
    const auto colon = text.rfind(':');
    if (colon == std::string_view::npos || colon == 0 || !parse(text.substr(colon + 1), address.port))
        throw std::runtime_error("--researcher " + given.researcher + ": give it as host:port");
    address.host = text.substr(0, colon);
    if (given.cert.empty()) {
        address.trust = ferry::trust_on_first_use{given.trust_on_first_use};
    } else {
        address.trust = ferry::pinned_certificate{given.cert};
    }
    return address;
}

example::data_set shard_of(const settings& given) {
    std::size_t number = 0, shards = 0;
    const std::string_view text = given.shard;
    const auto slash = text.find('/');
    if (slash == std::string_view::npos || !parse(text.substr(0, slash), number) ||
        !parse(text.substr(slash + 1), shards) || number < 1 || number > shards)
        throw std::runtime_error("--shard " + given.shard + ": give it as i/n, with i from 1 to n");
    auto shard = example::shard_of(example::training_rows(example::read_csv(given.data)), number, shards);
    if (shard.rows() == 0) throw std::runtime_error("--shard " + given.shard + ": there are fewer rows than shards");
    return shard;
}

void run(const settings& given) {
    using namespace std::chrono_literals;

    ferry::client_options options;
    options.node_id = given.id;
    options.researchers = {researcher_of(given)};
    worker hands(given.id, shard_of(given));
    ferry::grpc_client node(options, [&](const ferry::task& task) { hands.handle(task); });
    node.start();
    const bool connected = node.wait_connected(5s);
    std::printf("%s: %s %s\n", given.id.c_str(),
                connected ? "connected to" : "no answer yet, but goes on trying:", given.researcher.c_str());
    std::fflush(stdout);
    hands.wait_for_bye();
    node.stop();  // sends what is left
}

}  // namespace

int main(int argc, char** argv) {
    ferry::return_unused_memory();  // large payloads come seldom: what they used is given back
    settings given;
    CLI::App app{"A node of ferry's main job. It dials the researcher, and holds one shard of the data."};
    app.option_defaults()->always_capture_default();
    app.add_option("--id", given.id, "The node's name, unique among the researcher's nodes")->required();
    app.add_option("--researcher", given.researcher, "host:port of the researcher, as its certificate names it");
    auto* trust = app.add_option_group("trust", "How the researcher is known");
    trust->add_option("--cert", given.cert, "The researcher's certificate (PEM), which is pinned")
        ->check(CLI::ExistingFile);
    trust->add_option("--trust-on-first-use", given.trust_on_first_use,
                      "A file for the certificate that the researcher shows at the first connection");
    trust->require_option(1);
    app.add_option("--shard", given.shard, "i/n: hold part i of n parts of the training rows");
    app.add_option("--data", given.data, "The rows, as csv");
    CLI11_PARSE(app, argc, argv);

    try {
        run(given);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "error: %s\n", e.what());
        return 1;
    }
    return 0;
}
