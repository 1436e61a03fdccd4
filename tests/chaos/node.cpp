// A node of the test with real processes, see chaos_test.py. It checks the bytes of tasks, answers requests, and notes what
// it does in a file that outlives it, each line in one write:
//
//   begin TASK ATTEMPT LIFE       the callback was entered; ATTEMPT is 0 where the library doesn't tell
//   end TASK ATTEMPT LIFE         and is about to be left
//   bad TASK ATTEMPT LIFE WHAT    what came is not what was sent
//
//   node --id ID --port PORT --cert FILE --notes FILE --life LIFE --seed N --spool FOLDER
//
// It ends when stdin does.
#include <ferry/grpc_client.hpp>

#include "content.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <map>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

namespace {

using namespace std::chrono_literals;

constexpr auto longest_work = 60ms;

class notes {
public:
    notes(const std::string& path, std::string life)
        : file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)), life_(std::move(life)) {
        if (file_ < 0) throw std::system_error(errno, std::generic_category(), path);
    }
    notes(const notes&) = delete;
    notes& operator=(const notes&) = delete;
    ~notes() { ::close(file_); }

    void write(const std::string& what, std::uint64_t task, int attempt, const std::string& more = {}) const {
        auto line = what + " " + std::to_string(task) + " " + std::to_string(attempt) + " " + life_;
        line += (more.empty() ? "" : " " + more) + "\n";
        if (::write(file_, line.data(), line.size()) == static_cast<ssize_t>(line.size())) return;
        std::perror("node: its notes");
        std::abort();
    }

private:
    const int file_;
    const std::string life_;
};

void work(const ferry::task& task, const notes& to, std::uint64_t seed) {
    const auto& message = task.message();
    const auto id = message.at("task").get<std::uint64_t>();
    const auto attempt = task.attempt();
    to.write("begin", id, attempt);
    const auto content = message.at("content").get<ferry::bytes>();
    const auto hash = chaos::hash(content, id);
    if (hash != message.at("hash").get<std::uint64_t>()) {
        to.write("bad", id, attempt, std::to_string(content.size()) + " bytes of another hash");
    }
    std::this_thread::sleep_for(std::chrono::nanoseconds(longest_work) * (chaos::mixed(id) % 100) / 100);
    if (message.contains("reply_bytes")) {
        ferry::message reply = {{"task", id}, {"hash", hash}};
        reply["content"] = chaos::content(chaos::reply_seed(seed, id), message.at("reply_bytes").get<std::size_t>());
        task.reply(std::move(reply));
    }
    to.write("end", id, attempt);
}

std::map<std::string, std::string> read(int argc, char** argv) {
    std::map<std::string, std::string> out;
    for (int i = 1; i + 1 < argc; i += 2) out[argv[i]] = argv[i + 1];
    return out;
}

void run(const std::map<std::string, std::string>& given) {
    const notes to(given.at("--notes"), given.at("--life"));
    const auto seed = std::stoull(given.at("--seed"));
    ferry::client_options options;
    options.node_id = given.at("--id");
    options.researchers = {{"localhost", static_cast<std::uint16_t>(std::stoul(given.at("--port"))),
                            ferry::pinned_certificate{given.at("--cert")}}};
    options.keepalive = {1s, 2s};
    options.limits.idle_limit = 10s;
    options.limits.reconnect = {50ms, 2, 1s};
    options.spool = {given.at("--spool"), 4'000'000};
    const auto handle = [&](const ferry::task& task) {
        try {
            work(task, to, seed);
        } catch (const std::exception& e) {
            to.write("bad", 0, task.attempt(), e.what());
        }
    };
    ferry::grpc_client client(options, handle, ferry::bounded_retry{1000, 1h});
    client.start();
    while (std::cin.get() != std::char_traits<char>::eof()) continue;
    client.stop();
}

}  // namespace

int main(int argc, char** argv) try {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // also where it is stopped
    run(read(argc, argv));
    return EXIT_SUCCESS;
} catch (const std::exception& e) {
    std::fprintf(stderr, "node: %s\n", e.what());
    return EXIT_FAILURE;
}
