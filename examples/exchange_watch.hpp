// Follows large requests to their end: draws how far each node is, and takes the times of both directions.
// A node tells its stages as metrics: "received" when it has the whole task, "replying" when its reply is made.
#pragma once

#include <ferry/grpc_server.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "binary.hpp"
#include "feedback_board.hpp"
#include "progress.hpp"

namespace example {

class exchange_watch {
public:
    using clock = std::chrono::steady_clock;

    /// The time runs from here on.
    explicit exchange_watch(feedback_board& board) : board_(board), start_(clock::now()) {}

    /// Draws until all have ended.
    void follow(const std::vector<ferry::request_handle>& requests) {
        std::vector<std::string> names;
        for (const auto& request : requests) names.push_back(request.node());
        progress_bars bars(std::move(names));
        for (const auto& request : requests) {
            while (!request.wait_for(std::chrono::milliseconds(50))) draw(bars, requests);
        }
        end_ = clock::now();
        draw(bars, requests);
    }

    /// Until the last node had all of its task.
    clock::duration down() const {
        auto last = start_;
        for (const auto& [node, at] : stages_) last = std::max(last, at.received);
        return last - start_;
    }

    /// From the first node that had its reply ready, until the last reply was here.
    clock::duration up() const {
        auto first = end_;
        for (const auto& [node, at] : stages_) first = std::min(first, at.replying);
        return end_ - first;
    }

private:
    struct stage_times {
        std::string stage = "sending";
        clock::time_point received = clock::time_point::min();
        clock::time_point replying = clock::time_point::max();
    };

    void draw(progress_bars& bars, const std::vector<ferry::request_handle>& requests) {
        for (const auto& [metrics, when] : board_.take_metrics(0, std::chrono::milliseconds(0))) {
            auto& node = stages_[metrics.node_id];
            for (const auto& [stage, value] : metrics.metric) {
                node.stage = stage;
                (stage == "received" ? node.received : node.replying) = when;
            }
        }
        for (std::size_t i = 0; i < requests.size(); ++i) {
            const auto& request = requests[i];
            auto stage = stages_[request.node()].stage;
            if (const auto how = request.wait_for(std::chrono::seconds(0))) stage = to_string(how->kind);
            bars.set(i, to_megabytes(request.sent_bytes()), to_megabytes(request.total_bytes()), stage);
        }
        bars.draw();
    }

    feedback_board& board_;
    clock::time_point start_, end_;
    std::map<std::string, stage_times> stages_;
};

}  // namespace example
