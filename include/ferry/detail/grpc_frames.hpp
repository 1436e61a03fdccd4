// layer 4
// What is said over a stream, on the wire: frames as the protocol's messages and back, and the chunk of a delivery, which goes
// raw as those of polls do.
#pragma once

#include <ferry/researcher.pb.h>
#include <ferry/chunk.hpp>
#include <ferry/detail/utf8.hpp>
#include <ferry/error.hpp>
#include <ferry/frames.hpp>
#include <ferry/payload.hpp>
#include <ferry/wire.hpp>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry::wire {

inline constexpr const char* get_task = "/researcher.ResearcherService/GetTask";

namespace detail {

// TaskResponse: task = 1000, offset = 1001, total = 1002, attempt = 1003, urgent = 1004, checksum = 1005. TaskResult: checksum = 1000.
enum class kind : std::uint32_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };
constexpr std::uint32_t tag(std::uint32_t field, kind of) { return field << 3 | static_cast<std::uint32_t>(of); }
inline constexpr std::uint32_t task_tag = tag(1000, kind::fixed64), offset_tag = tag(1001, kind::varint),
                               total_tag = tag(1002, kind::varint), attempt_tag = tag(1003, kind::varint),
                               urgent_tag = tag(1004, kind::varint), checksum_tag = tag(1005, kind::fixed32),
                               upload_checksum_tag = tag(1000, kind::fixed32);

// TaskResponse: whole = 1013, of Whole: task = 1, attempt = 2, urgent = 3, content = 4, checksum = 5.
inline constexpr std::uint32_t whole_tag = tag(1013, kind::bytes), whole_task_tag = tag(1, kind::fixed64),
                               whole_attempt_tag = tag(2, kind::varint), whole_urgent_tag = tag(3, kind::varint),
                               whole_content_tag = tag(4, kind::bytes), whole_checksum_tag = tag(5, kind::fixed32);

/// A few fields, such as the extension of a chunk's header.
class header_writer {
public:
    using stream = google::protobuf::io::CodedOutputStream;

    header_writer& varint(std::uint32_t tag, std::uint64_t value) {
        if (value == 0) return *this;
        return wrote(stream::WriteVarint64ToArray(value, stream::WriteVarint32ToArray(tag, end())));
    }
    header_writer& fixed64(std::uint32_t tag, std::uint64_t value) {
        return wrote(stream::WriteLittleEndian64ToArray(value, stream::WriteVarint32ToArray(tag, end())));
    }
    header_writer& fixed32(std::uint32_t tag, std::uint32_t value) {
        return wrote(stream::WriteLittleEndian32ToArray(value, stream::WriteVarint32ToArray(tag, end())));
    }
    std::string_view view() const { return {reinterpret_cast<const char*>(data_.data()), size_}; }

private:
    std::uint8_t* end() { return data_.data() + size_; }
    header_writer& wrote(const std::uint8_t* end) {
        size_ = static_cast<std::size_t>(end - data_.data());
        return *this;
    }

    std::array<std::uint8_t, 64> data_;
    std::size_t size_ = 0;
};

}  // namespace detail

/// Writes a chunk of a delivery, with what its first and its last chunk say beside.
template <std::same_as<grpc::ByteBuffer> Buffer>
void write_part(Buffer& out, const chunk& part, const frames::delivery_head& head,
                std::optional<std::uint32_t> checksum, const payload& content, std::uint64_t offset) {
    detail::header_writer more;
    more.fixed64(detail::task_tag, head.task);
    if (part.iteration == 1) {
        more.varint(detail::offset_tag, head.offset)
            .varint(detail::total_tag, head.total)
            .varint(detail::attempt_tag, static_cast<std::uint64_t>(head.attempt))
            .varint(detail::urgent_tag, head.urgent ? 1 : 0);
    }
    if (part.last() && checksum) more.fixed32(detail::checksum_tag, *checksum);
    write_chunk(out, part, content, offset, more.view());
}

/// Writes a chunk of an upload; `checksum` is told with the last one.
template <std::same_as<grpc::ByteBuffer> Buffer>
void write_upload_part(Buffer& out, const chunk& part, std::optional<std::uint32_t> checksum, const payload& content,
                       std::uint64_t offset) {
    detail::header_writer more;
    if (part.last() && checksum) more.fixed32(detail::upload_checksum_tag, *checksum);
    write_chunk(out, part, content, offset, more.view());
}

/// A task that is small and in memory, as a field of a TaskResponse. Its bytes are copied where that is written, and no sooner.
/// Throws `error{invalid_argument}` for a payload with a source.
class whole_task {
    using stream = google::protobuf::io::CodedOutputStream;

public:
    whole_task(std::shared_ptr<const payload> content, const frames::delivery_head& head)
        : content_(std::move(content)) {
        if (!content_->in_memory()) throw error(errc::invalid_argument, "a payload with a source is no small task");
        head_.fixed64(detail::whole_task_tag, head.task)
            .varint(detail::whole_attempt_tag, static_cast<std::uint64_t>(head.attempt))
            .varint(detail::whole_urgent_tag, head.urgent ? 1 : 0);
        if (const auto checksum = content_->checksum_of(content_->size())) {
            head_.fixed32(detail::whole_checksum_tag, *checksum);
        }
        head_.varint(detail::whole_content_tag, content_->size());  // which follows it
    }

    std::size_t size() const {
        return stream::VarintSize32(detail::whole_tag) + stream::VarintSize32(inner()) + inner();
    }

    /// Returns the end of what it wrote.
    std::uint8_t* write(std::uint8_t* to) const {
        to = stream::WriteVarint32ToArray(inner(), stream::WriteVarint32ToArray(detail::whole_tag, to));
        const auto append = [&](const auto& run) { to = std::copy_n(run.data(), run.size(), to); };
        append(head_.view());
        for (const auto& run : content_->runs()) append(run);
        return to;
    }

private:
    std::uint32_t inner() const { return static_cast<std::uint32_t>(head_.view().size() + content_->size()); }

    detail::header_writer head_;
    std::shared_ptr<const payload> content_;
};

/// Serializes a small message with these tasks beside, into gRPC's memory at once.
template <std::same_as<grpc::ByteBuffer> Buffer, class Response>
void serialize(Buffer& out, const Response& message, const std::vector<whole_task>& tasks) {
    auto size = message.ByteSizeLong();
    for (const auto& each : tasks) size += each.size();
    grpc::Slice slice(size);
    auto* to = message.SerializeWithCachedSizesToArray(const_cast<std::uint8_t*>(slice.begin()));
    for (const auto& each : tasks) to = each.write(to);
    Buffer made(&slice, 1);
    out.Swap(&made);
}

/// What a chunk says of itself, without its bytes.
struct part_header {
    std::int32_t size = 0;
    std::int32_t iteration = 0;
    std::uint64_t length = 0;  // of its bytes
    bool is_part = false;      // it is one of a delivery
    bool says_more = false;    // fields that are no chunk's
    frames::delivery_head head{};
    std::optional<std::uint32_t> checksum{};
    std::optional<std::uint32_t> upload_checksum{};

    bool first() const noexcept { return iteration == 1; }
};

/// False where it is no valid message.
template <std::same_as<grpc::ByteBuffer> Buffer>
bool read_header(const Buffer& in, part_header& out) {
    using google::protobuf::internal::WireFormatLite;
    Buffer copy(in);  // shares the slices
    grpc::ProtoBufferReader reader(&copy);
    if (!reader.status().ok()) return false;
    google::protobuf::io::CodedInputStream coded(&reader);
    std::uint64_t value = 0;
    std::uint32_t word = 0;
    int length = 0;
    while (const auto tag = coded.ReadTag()) {
        bool ok = true;
        switch (tag) {
            case detail::size_tag:
                ok = coded.ReadVarint64(&value);
                out.size = static_cast<std::int32_t>(value);
                break;
            case detail::iteration_tag:
                ok = coded.ReadVarint64(&value);
                out.iteration = static_cast<std::int32_t>(value);
                break;
            case detail::bytes_tag:
                ok = coded.ReadVarintSizeAsInt(&length) && coded.Skip(length);
                out.length = static_cast<std::uint64_t>(length);
                break;
            case detail::task_tag:
                ok = coded.ReadLittleEndian64(&out.head.task);
                out.is_part = true;
                break;
            case detail::offset_tag: ok = coded.ReadVarint64(&out.head.offset); break;
            case detail::total_tag: ok = coded.ReadVarint64(&out.head.total); break;
            case detail::attempt_tag:
                ok = coded.ReadVarint64(&value);
                out.head.attempt = static_cast<int>(value);
                break;
            case detail::urgent_tag:
                ok = coded.ReadVarint64(&value);
                out.head.urgent = value != 0;
                break;
            case detail::checksum_tag:
                ok = coded.ReadLittleEndian32(&word);
                out.checksum = word;
                break;
            case detail::upload_checksum_tag:
                ok = coded.ReadLittleEndian32(&word);
                out.upload_checksum = word;
                break;
            default: ok = WireFormatLite::SkipField(&coded, tag); out.says_more = true;
        }
        if (!ok) return false;
    }
    return coded.ConsumedEntireMessage();
}

// --- frames as messages, and back --------------------------------------------------------------------------------------

template <class Receipt>
void to_proto(const frames::receipt& from, Receipt& to) {
    to.set_task(from.task);
    to.set_verdict(static_cast<decltype(to.verdict())>(from.what));
    if (!from.text.empty()) to.set_text(ferry::detail::utf8_text(from.text, max_status_bytes));
    to.set_pause_ms(static_cast<std::uint32_t>(
        std::clamp<std::int64_t>(from.pause.count(), 0, std::numeric_limits<std::uint32_t>::max())));
}

/// What a later version may say counts as "given back": then the task is sent again.
template <class Receipt>
frames::receipt from_proto(const Receipt& from) {
    const auto number = static_cast<int>(from.verdict());
    const auto what = number >= 0 && number <= 3 ? static_cast<frames::verdict>(number) : frames::verdict::given_back;
    return {from.task(), what, from.text(), std::chrono::milliseconds(from.pause_ms())};
}

template <class Whole>
frames::delivery_head head_from_proto(const Whole& from) {
    return {from.task(), 0, from.content().size(), static_cast<int>(from.attempt()), from.urgent()};
}

template <class Hello>
void to_proto(const frames::hello& from, Hello& to) {
    for (const auto& each : from.held) {
        auto& held = *to.add_held();
        held.set_task(each.task);
        held.set_received(each.received);
        held.set_ready(each.ready);
    }
    for (const auto& each : from.receipts) to_proto(each, *to.add_receipts());
    to.set_window_tasks(from.window_tasks);
    to.set_window_bytes(from.window_bytes);
}

template <class Hello>
frames::hello hello_from_proto(const Hello& from) {
    frames::hello out;
    for (const auto& each : from.held()) out.held.push_back({each.task(), each.received(), each.ready()});
    for (const auto& each : from.receipts()) out.receipts.push_back(from_proto(each));
    out.window_tasks = std::max<std::uint32_t>(from.window_tasks(), 1);
    out.window_bytes = from.window_bytes();
    return out;
}

template <class Response>
Response to_response(const frames::welcome& what) {
    Response out;
    out.mutable_welcome()->set_lease_ms(static_cast<std::uint32_t>(
        std::clamp<std::int64_t>(what.lease.count(), 0, std::numeric_limits<std::uint32_t>::max())));
    return out;
}

template <class Answer>
void to_proto(const frames::answer& from, Answer& to) {
    if (from.reason != errc::ok) {
        const auto status = to_status(from.reason, from.text);
        to.set_text(status.error_message());
        to.set_status(static_cast<int>(status.error_code()));
    }
    to.set_reply(from.reply);  // last: without a number it is none
}

template <class Answer>
frames::answer answer_from_proto(const Answer& from) {
    return {from.reply(), to_errc(grpc::Status(static_cast<grpc::StatusCode>(from.status()), {})), from.text()};
}

// --- uploads that go on ------------------------------------------------------------------------------------------------

inline constexpr const char* upload_key = "ferry-upload";
inline constexpr const char* offset_key = "ferry-offset";

inline std::string to_hex(std::uint64_t number) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string out(16, '0');
    for (std::size_t i = 16; i-- > 0; number >>= 4) out[i] = digits[number & 15];
    return out;
}

inline std::optional<std::uint64_t> to_number(std::string_view digits, int base) {
    std::uint64_t number = 0;
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
    if (problem != std::errc() || end != digits.data() + digits.size() || digits.empty()) return std::nullopt;
    return number;
}

/// Which upload this is, and of how many bytes.
struct upload_name {
    std::uint64_t number = 0;
    std::uint64_t total = 0;

    std::string to_text() const { return to_hex(number) + "-" + std::to_string(total); }

    static std::optional<upload_name> from_text(std::string_view text) {
        const auto dash = text.find('-');
        if (dash == text.npos) return std::nullopt;
        const auto number = to_number(text.substr(0, dash), 16), total = to_number(text.substr(dash + 1), 10);
        if (!number || *number == 0 || !total) return std::nullopt;
        return upload_name{*number, *total};
    }
};

}  // namespace ferry::wire
