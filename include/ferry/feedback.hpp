// What nodes tell beside their replies: log lines and metrics. Plain values; how they travel is the wire's business.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>

namespace ferry {

/// A log line of a node.
struct log_line {
    std::string node_id;
    std::string level;    ///< "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"
    std::string message;  ///< from a Python node a JSON string {asctime, node_id, name, level, message}
};

/// Metrics of a node's training.
struct scalars {
    std::string node_id;
    std::string node_name;
    std::string experiment_id;
    bool train = false;
    bool test = false;
    bool test_on_local_updates = false;
    bool test_on_global_updates = false;
    std::map<std::string, float> metric;
    std::optional<std::int32_t> epoch;
    std::int32_t total_samples = 0;
    std::int32_t batch_samples = 0;
    std::int32_t num_batches = 0;
    std::optional<std::int32_t> num_samples_trained;
    std::int32_t iteration = 0;
};

/// Which of the two it is, is its type: `std::get_if<ferry::log_line>(&f)`.
using feedback = std::variant<log_line, scalars>;

/// The id of the node that sent it.
inline const std::string& node_of(const feedback& from) {
    return std::visit([](const auto& each) -> const std::string& { return each.node_id; }, from);
}

}  // namespace ferry
