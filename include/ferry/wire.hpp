// The only place that knows how things look on the wire: a chunk as a `grpc::ByteBuffer` and back, ferry's reasons as gRPC
// status and back, and feedback as the protocol's message.
//
// A chunk goes out as a header of a few bytes and slices that borrow the payload; it comes in by one copy, from gRPC's
// slices to its place in the payload (or in its file). Fields are accepted in any order, unknown ones are skipped.
#pragma once

#include <ferry/researcher.pb.h>
#include <ferry/chunk.hpp>
#include <ferry/chunk_assembler.hpp>
#include <ferry/detail/utf8.hpp>
#include <ferry/error.hpp>
#include <ferry/feedback.hpp>
#include <ferry/payload.hpp>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/proto_buffer_writer.h>
#include <grpcpp/support/slice.h>
#include <grpcpp/support/status.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry::wire {

inline constexpr int max_grpc_message_bytes = 100 * 1024 * 1024;

/// Of a status's text: it goes with the call's trailers, which a peer takes only so many bytes of.
inline constexpr std::size_t max_status_bytes = 1024;
inline constexpr const char* protocol_version = "7";
inline constexpr const char* get_task_unary = "/researcher.ResearcherService/GetTaskUnary";
inline constexpr const char* reply_task = "/researcher.ResearcherService/ReplyTask";
inline constexpr const char* send_feedback = "/researcher.ResearcherService/Feedback";

namespace detail {

// TaskResponse and TaskResult: size = 1, iteration = 2, bytes_ = 3.
inline constexpr std::uint8_t size_tag = 0x08, iteration_tag = 0x10, bytes_tag = 0x1a;

inline std::uint8_t* put_varint(std::uint8_t* to, std::uint32_t value) {
    return google::protobuf::io::CodedOutputStream::WriteVarint32ToArray(value, to);
}

/// The run as a slice that counts one reference to the run's owner; no allocation but gRPC's own.
inline grpc::Slice borrow(const bytes& run) {
    auto owner = run.block();
    auto* memory = const_cast<std::uint8_t*>(run.data());
    if (!owner.get()) return grpc::Slice(memory, run.size(), grpc::Slice::STATIC_SLICE);
    return grpc::Slice(
        memory, run.size(), [](void* block) { static_cast<ferry::detail::block*>(block)->release(); }, owner.detach());
}

}  // namespace detail

/// All of a chunk's message but its bytes, which come last. `more` are other fields of it, at most 64 bytes of them.
class chunk_header {
public:
    explicit chunk_header(const chunk& part, std::string_view more = {}) {
        end_ = std::copy(more.begin(), more.end(), data_.data());
        *end_++ = detail::size_tag;
        end_ = detail::put_varint(end_, static_cast<std::uint32_t>(part.size));
        *end_++ = detail::iteration_tag;
        end_ = detail::put_varint(end_, static_cast<std::uint32_t>(part.iteration));
        if (part.length == 0) return;
        *end_++ = detail::bytes_tag;
        end_ = detail::put_varint(end_, part.length);
    }
    chunk_header(const chunk_header&) = delete;
    chunk_header& operator=(const chunk_header&) = delete;

    const std::uint8_t* data() const noexcept { return data_.data(); }
    std::size_t size() const noexcept { return static_cast<std::size_t>(end_ - data_.data()); }

private:
    std::array<std::uint8_t, 18 + 64> data_;
    std::uint8_t* end_;
};

/// Writes one chunk whose data are the given runs' bytes. The buffer's slices keep the runs' owners alive.
template <std::same_as<grpc::ByteBuffer> Buffer>
void write_chunk(Buffer& out, const chunk& part, const payload& content, std::uint64_t offset,
                 std::string_view more = {}) {
    const chunk_header header(part, more);
    const grpc::Slice head(header.data(), header.size());
    std::array<grpc::Slice, 2> usual{head};
    std::vector<grpc::Slice> many;
    std::size_t count = 1;
    content.for_each_run(offset, part.length, [&](const bytes& run) {
        if (count < usual.size()) {
            usual[count] = detail::borrow(run);
        } else {
            if (many.empty()) many.assign(usual.begin(), usual.end());
            many.push_back(detail::borrow(run));
        }
        ++count;
    });
    grpc::ByteBuffer made(many.empty() ? usual.data() : many.data(), count);
    out.Swap(&made);  // an assignment would copy
}

namespace detail {

/// Hands the next bytes over as they lie in the buffer's slices. False where they end too early, or the assembler failed.
inline bool read_data(google::protobuf::io::CodedInputStream& from, int length, chunk_assembler& to) {
    while (length > 0) {
        const void* at = nullptr;
        int there = 0;
        if (!from.GetDirectBufferPointer(&at, &there)) return false;
        const int taken = std::min(length, there);
        if (!to.write({static_cast<const std::uint8_t*>(at), static_cast<std::size_t>(taken)})) return false;
        if (!from.Skip(taken)) return false;
        length -= taken;
    }
    return true;
}

}  // namespace detail

/// What reading a chunk came to; where `code` isn't `ok`, the stream is of no more use.
struct read_result {
    errc code = errc::ok;
    std::string text;
};

/// Reads one chunk into the assembler, its data by one copy.
inline read_result read_chunk(grpc::ByteBuffer& in, chunk_assembler& to) {
    using google::protobuf::internal::WireFormatLite;
    const auto total = in.Length();
    grpc::ProtoBufferReader reader(&in);
    if (!reader.status().ok())
        return {errc::protocol_error, "a chunk could not be read: " + reader.status().error_message()};
    google::protobuf::io::CodedInputStream coded(&reader);
    std::uint64_t size = 0, iteration = 0;
    bool has_data = false;
    while (const auto tag = coded.ReadTag()) {
        bool ok = true;
        if (tag == detail::size_tag) {
            ok = coded.ReadVarint64(&size);
        } else if (tag == detail::iteration_tag) {
            ok = coded.ReadVarint64(&iteration);
        } else if (tag == detail::bytes_tag) {
            int length = 0;
            ok = coded.ReadVarintSizeAsInt(&length) && static_cast<std::size_t>(length) <= total;
            if (ok) {
                to.begin(static_cast<std::size_t>(length), static_cast<std::int32_t>(size));
                ok = detail::read_data(coded, length, to);
                if (to.failed()) return {to.code(), to.text()};
                has_data = true;
            }
        } else {
            ok = WireFormatLite::SkipField(&coded, tag);
        }
        if (!ok) return {errc::protocol_error, "a chunk is not a valid protobuf message"};
    }
    if (!coded.ConsumedEntireMessage()) return {errc::protocol_error, "a chunk is not a valid protobuf message"};
    if (!has_data) to.begin(0, 0);
    if (!to.commit(static_cast<std::int32_t>(size), static_cast<std::int32_t>(iteration)))
        return {to.code(), to.text()};
    return {};
}

/// Parses a small message. False where it isn't one.
template <class Message>
bool parse(const grpc::ByteBuffer& in, Message& out) {
    grpc::ProtoBufferReader reader(const_cast<grpc::ByteBuffer*>(&in));  // it changes nothing
    return reader.status().ok() && out.ParseFromZeroCopyStream(&reader);
}

/// Serializes a small message, into gRPC's memory at once.
template <std::same_as<grpc::ByteBuffer> Buffer, class Message>
void serialize(Buffer& out, const Message& message) {
    grpc::Slice slice(message.ByteSizeLong());
    message.SerializeWithCachedSizesToArray(const_cast<std::uint8_t*>(slice.begin()));
    grpc::ByteBuffer made(&slice, 1);
    out.Swap(&made);  // an assignment would copy
}

/// A buffer that holds an empty message.
inline grpc::ByteBuffer empty_message() {
    const grpc::Slice nothing;
    return grpc::ByteBuffer(&nothing, 1);
}

/// The status that tells a peer why. A Python node goes on only after UNAVAILABLE and UNKNOWN: what it should survive is
/// one of these.
inline grpc::Status to_status(errc reason, const std::string& text) {
    const auto as = [&](grpc::StatusCode code) {
        return grpc::Status(code,
                            std::string(to_string(reason)) + ": " + ferry::detail::utf8_text(text, max_status_bytes));
    };
    switch (reason) {
        case errc::ok: return grpc::Status::OK;
        case errc::node_unknown: return as(grpc::StatusCode::UNKNOWN);
        case errc::bad_chunk:
        case errc::decode_failed:
        case errc::protocol_error:
        case errc::invalid_argument: return as(grpc::StatusCode::INVALID_ARGUMENT);
        case errc::too_large: return as(grpc::StatusCode::RESOURCE_EXHAUSTED);
        case errc::checksum_differs: return as(grpc::StatusCode::DATA_LOSS);
        case errc::deadline_exceeded: return as(grpc::StatusCode::DEADLINE_EXCEEDED);
        case errc::not_permitted: return as(grpc::StatusCode::PERMISSION_DENIED);
        default: return as(grpc::StatusCode::UNAVAILABLE);
    }
}

/// What a peer's status means to a sender.
inline errc to_errc(const grpc::Status& status) {
    switch (status.error_code()) {
        case grpc::StatusCode::OK: return errc::ok;
        case grpc::StatusCode::UNKNOWN: return errc::node_unknown;
        case grpc::StatusCode::INVALID_ARGUMENT: return errc::protocol_error;
        case grpc::StatusCode::RESOURCE_EXHAUSTED: return errc::too_large;
        case grpc::StatusCode::PERMISSION_DENIED:
        case grpc::StatusCode::UNAUTHENTICATED: return errc::not_permitted;
        case grpc::StatusCode::DEADLINE_EXCEEDED: return errc::idle_timeout;
        case grpc::StatusCode::DATA_LOSS: return errc::checksum_differs;
        case grpc::StatusCode::UNAVAILABLE:
        case grpc::StatusCode::CANCELLED: return errc::connection_failed;
        default: return errc::stream_broken;
    }
}

namespace detail {

/// The text of a log line as a Python researcher reads it: JSON with the time and the rest.
template <class Json = nlohmann::json>
std::string to_log_text(const log_line& line) {
    using namespace std::chrono;
    const auto now = system_clock::now();
    const auto seconds = system_clock::to_time_t(now);
    std::tm parts{};
    ::localtime_r(&seconds, &parts);
    std::array<char, 64> time{};
    const auto length = std::strftime(time.data(), time.size(), "%Y-%m-%d %H:%M:%S", &parts);
    const auto fraction = std::to_string(1000 + duration_cast<milliseconds>(now.time_since_epoch()).count() % 1000);
    const Json all = {{"asctime", std::string(time.data(), length) + "," + fraction.substr(1)},
                      {"node_id", line.node_id},
                      {"name", "ferry"},
                      {"level", line.level},
                      {"message", line.message}};
    return all.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// The text that `to_log_text` was given. What another make of node sent stays as it is.
template <class Json = nlohmann::json>
std::string from_log_text(const std::string& text) {
    if (text.find("\"ferry\"") == std::string::npos) return text;
    bool is_own = true;
    int keys = 0;
    // What is nested, or has other keys, is another make's, and takes no memory.
    const auto look = [&](int depth, typename Json::parse_event_t event, const Json&) {
        using is = typename Json::parse_event_t;
        is_own &=
            event != is::array_start && (event != is::object_start || depth == 0) && (event != is::key || ++keys <= 5);
        return is_own;
    };
    const auto all = Json::parse(text.data(), text.data() + text.size(), look, false);
    if (!is_own || !all.is_object() || all.size() != 5) return text;
    const auto name = all.find("name"), message = all.find("message");
    const bool own = name != all.end() && *name == "ferry" && message != all.end() && message->is_string();
    return own ? message->template get<std::string>() : text;
}

}  // namespace detail

/// Feedback as the protocol's message, and back. An empty message is no feedback.
template <class Proto = researcher::FeedbackMessage>
Proto to_proto(const feedback& from, const std::string& researcher_id) {
    Proto out;
    out.set_protocol_version(protocol_version);
    if (!researcher_id.empty()) out.set_researcher_id(researcher_id);
    if (const auto* line = std::get_if<log_line>(&from)) {
        auto& log = *out.mutable_log();
        log.set_node_id(line->node_id);
        log.set_level(ferry::detail::utf8_text(line->level, line->level.size()));
        log.set_msg(detail::to_log_text(*line));
        return out;
    }
    const auto& s = std::get<scalars>(from);
    auto& scalar = *out.mutable_scalar();
    scalar.set_node_id(s.node_id);
    const auto text = [](const std::string& from) { return ferry::detail::utf8_text(from, from.size()); };
    scalar.set_node_name(text(s.node_name));
    scalar.set_experiment_id(text(s.experiment_id));
    scalar.set_train(s.train);
    scalar.set_test(s.test);
    scalar.set_test_on_local_updates(s.test_on_local_updates);
    scalar.set_test_on_global_updates(s.test_on_global_updates);
    for (const auto& [name, value] : s.metric) (*scalar.mutable_metric())[text(name)] = value;
    if (s.epoch) scalar.set_epoch(*s.epoch);
    scalar.set_total_samples(s.total_samples);
    scalar.set_batch_samples(s.batch_samples);
    scalar.set_num_batches(s.num_batches);
    if (s.num_samples_trained) scalar.set_num_samples_trained(*s.num_samples_trained);
    scalar.set_iteration(s.iteration);
    return out;
}

template <std::same_as<researcher::FeedbackMessage> Proto>
bool from_proto(const Proto& from, std::same_as<feedback> auto& out) {
    if (from.has_log()) {
        out = log_line{from.log().node_id(), from.log().level(), detail::from_log_text(from.log().msg())};
        return true;
    }
    if (!from.has_scalar()) return false;
    const auto& s = from.scalar();
    scalars to;
    to.node_id = s.node_id();
    to.node_name = s.node_name();
    to.experiment_id = s.experiment_id();
    to.train = s.train();
    to.test = s.test();
    to.test_on_local_updates = s.test_on_local_updates();
    to.test_on_global_updates = s.test_on_global_updates();
    to.metric.insert(s.metric().begin(), s.metric().end());
    if (s.has_epoch()) to.epoch = s.epoch();
    to.total_samples = s.total_samples();
    to.batch_samples = s.batch_samples();
    to.num_batches = s.num_batches();
    if (s.has_num_samples_trained()) to.num_samples_trained = s.num_samples_trained();
    to.iteration = s.iteration();
    out = std::move(to);
    return true;
}

}  // namespace ferry::wire
