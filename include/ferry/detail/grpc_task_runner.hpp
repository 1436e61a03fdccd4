// layer 4
// Runs the user's callback for a task that has come over. One that can't be decoded, or whose callback throws, costs just
// that task: it is told to the log, to the researcher's log, and to whoever asked: by an ErrorMessage where that is expected,
// else by a refusal.
#pragma once

#include <ferry/client_options.hpp>
#include <ferry/detail/alarm.hpp>
#include <ferry/detail/message_log.hpp>
#include <ferry/error.hpp>
#include <ferry/fedbiomed.hpp>
#include <ferry/feedback.hpp>
#include <ferry/frames.hpp>
#include <ferry/message.hpp>
#include <ferry/payload.hpp>
#include <ferry/task.hpp>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace ferry::detail {

/// A task as it came over, and when.
struct arrived_task {
    bytes content;
    std::chrono::steady_clock::time_point when;
    std::uint64_t number = 0;
    int attempt = 1;
};

template <class Serializer>
class grpc_task_runner {
public:
    using message_type = typename Serializer::message_type;
    using host = task_host<message_type>;
    using handler = std::function<void(basic_task<message_type>)>;

    grpc_task_runner(std::shared_ptr<const client_options> options, Serializer serializer,
                     std::shared_ptr<const handler> on_task)
        : options_(std::move(options)),
          log_(options_->log, options_->debug),
          serializer_(std::move(serializer)),
          on_task_(std::move(on_task)) {}

    /// What became of it is in `run` afterwards.
    void run(const std::shared_ptr<host>& over, const std::shared_ptr<task_run>& run, arrived_task work) const {
        std::optional<basic_task<message_type>> task;
        try {
            const auto size = work.content.size();
            auto decoded = serializer_.decode(std::exchange(work.content, {}));
            if (log_.is_debug()) {
                log_.debug(message_log::line("in", over->researcher(), log_.label(decoded), size, attempt_of(work),
                                             now().steady - work.when));
            }
            task.emplace(over, run, std::move(decoded));
            if (*on_task_) (*on_task_)(*task);
            if (const auto how = run->decided(); run->number == 0 && how.what != frames::verdict::taken) {
                report(*over, *run, task, "it is refused: " + how.text);
            }
        } catch (const error& e) {
            report(*over, *run, task, e.what(), fedbiomed::errnum(e.code()));
        } catch (const std::exception& e) {
            report(*over, *run, task, e.what());
        } catch (...) {
            report(*over, *run, task, "an exception that is no std::exception");
        }
    }

private:
    using maybe_task = std::optional<basic_task<message_type>>;

    static std::optional<int> attempt_of(const arrived_task& work) {
        return work.number != 0 ? std::optional(work.attempt) : std::nullopt;
    }

    void report(host& over, task_run& run, const maybe_task& task, const std::string& why,
                std::optional<std::string> number = {}) const {
        const std::string text = "a task failed: " + why;
        log_.warn(over.researcher() + ": " + text);
        over.send_feedback(log_line{{}, "ERROR", text});
        if constexpr (std::same_as<message_type, message>) {
            if (task && is_request_of_the_original(task->message())) {
                run.decide({});
                return answer(over, *task, text, std::move(number));
            }
        }
        run.decide({frames::verdict::refused, text});
    }

    static bool is_request_of_the_original(const message& m) {
        return !fedbiomed::class_of(m).empty() && !message_traits<message>::request_id(m).empty();
    }

    void answer(host& over, const basic_task<message>& task, const std::string& text,
                std::optional<std::string> number) const {
        const auto& id = options_->node_id;
        const auto& name = options_->node_name.empty() ? id : options_->node_name;
        try {
            task.reply(fedbiomed::failure_of(task.message(), id, name, text, std::move(number)));
        } catch (const error& e) {
            log_.warn(over.researcher() + ": the failure could not be answered: " + e.what());
        }
    }

    const std::shared_ptr<const client_options> options_;
    const message_log log_;
    [[no_unique_address]] Serializer serializer_;
    const std::shared_ptr<const handler> on_task_;
};

}  // namespace ferry::detail
