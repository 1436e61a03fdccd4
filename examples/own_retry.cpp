// A retry policy of one's own: it never gives up a task, but lets more and more time pass.
#include <ferry/ferry.hpp>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <optional>

// readme: policy
struct patient_retry {
    using policy_category = ferry::retry_tag;

    std::optional<std::chrono::milliseconds> next(const ferry::failed_attempt& failed) const noexcept {
        return std::chrono::milliseconds(100) * std::min(failed.attempts, 50);
    }
};

using patient_server = ferry::basic_grpc_server<patient_retry, ferry::max_message_bytes_length<1'000'000>>;
// readme: end

int main() {
    static_assert(ferry::retry_policy<patient_retry>);
    ferry::server_options options;
    options.port = 0;
    options.ssl = ferry::plain_text{};
    options.wait_for_first_node = false;
    patient_server server(options);
    server.start();
    const auto pause = patient_retry{}.next({3, std::chrono::hours(10), ferry::errc::stream_broken});
    std::cout << "after the third failure it waits for " << pause->count() << " ms\n";
    return pause == std::chrono::milliseconds(300) && server.is_alive() ? 0 : 1;
}
