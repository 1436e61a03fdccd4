// A store in a Redis that nobody has started: ferry::redis brings ferry's header and the library.
#include <ferry/agent_store/redis.hpp>

#include <chrono>
#include <iostream>

int main() {
    using namespace std::chrono_literals;
    const ferry::redis_options options{.unix_socket = "no_such_socket", .connect_within = 100ms, .patience = 100ms};
    try {
        const ferry::redis_agent_store store(options);
    } catch (const ferry::error& e) {
        std::cout << "refused: " << e.what() << "\n";
        return e.code() == ferry::errc::store_failed ? 0 : 1;
    }
    return 1;
}
