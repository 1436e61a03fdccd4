#include <ferry/wire.hpp>

#include "support.hpp"
#include "temporary_folder.hpp"

#include <gmock/gmock.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <latch>
#include <limits>
#include <memory>
#include <optional>
#include <regex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

namespace {

namespace wire = ferry::wire;
using ferry::bytes;
using ferry::chunk;
using ferry::chunk_assembler;
using ferry::errc;
using ferry::payload;
using ferry_test::pattern;
using google::protobuf::util::MessageDifferencer;
using testing::HasSubstr;

constexpr std::int32_t max_number = std::numeric_limits<std::int32_t>::max();
constexpr std::uint32_t default_length = ferry::max_message_bytes_length<>::value;

// --- helpers -----------------------------------------------------------------------------------------------------------------

std::vector<grpc::Slice> slices_of(const grpc::ByteBuffer& buffer) {
    std::vector<grpc::Slice> out;
    EXPECT_TRUE(buffer.Dump(&out).ok());
    return out;
}

std::string text_of(const grpc::ByteBuffer& buffer) {
    std::string out;
    for (const auto& slice : slices_of(buffer)) out.append(slice.begin(), slice.end());
    return out;
}

/// The text in slices of so many bytes.
grpc::ByteBuffer buffer_of(const std::string& text, std::size_t slice_bytes = static_cast<std::size_t>(-1)) {
    std::vector<grpc::Slice> slices;
    for (std::size_t at = 0; at < text.size(); at += slices.back().size())
        slices.emplace_back(text.substr(at, slice_bytes));
    return {slices.data(), slices.size()};
}

std::string written(const chunk& part, const payload& content, std::uint64_t offset = 0) {
    grpc::ByteBuffer out;
    wire::write_chunk(out, part, content, offset);
    EXPECT_EQ(out.Length(), text_of(out).size());
    return text_of(out);
}

wire::read_result read(const std::string& text, chunk_assembler& to,
                       std::size_t slice_bytes = static_cast<std::size_t>(-1)) {
    auto in = buffer_of(text, slice_bytes);
    return wire::read_chunk(in, to);
}

template <class Message>
grpc::ByteBuffer serialized(const Message& message) {
    grpc::ByteBuffer out;
    wire::serialize(out, message);
    return out;
}

template <class Message = researcher::TaskResponse>
std::string serialized(std::int32_t size, std::int32_t iteration, const std::string& data) {
    Message message;
    message.set_size(size);
    message.set_iteration(iteration);
    message.set_bytes_(data);
    return message.SerializeAsString();
}

/// Fields as they stand on the wire, put together by hand.
class fields {
public:
    fields& varint(std::uint32_t number, std::uint64_t value) {
        tag(number, 0);
        coded_.WriteVarint64(value);
        return *this;
    }
    fields& fixed64(std::uint32_t number) {
        tag(number, 1);
        coded_.WriteLittleEndian64(0x0102030405060708);
        return *this;
    }
    fields& data(std::uint32_t number, const std::string& value) { return claimed(number, value.size(), value); }
    fields& claimed(std::uint32_t number, std::uint64_t length, const std::string& value) {
        tag(number, 2);
        coded_.WriteVarint64(length);
        return raw(value);
    }
    fields& group(std::uint32_t number, const std::string& inside) {
        tag(number, 3);
        raw(inside);
        return tag(number, 4);
    }
    fields& fixed32(std::uint32_t number) {
        tag(number, 5);
        coded_.WriteLittleEndian32(0x01020304);
        return *this;
    }
    fields& tag(std::uint32_t number, std::uint32_t wire_type) {
        coded_.WriteTag(number << 3 | wire_type);
        return *this;
    }
    fields& raw(const std::string& text) {
        coded_.WriteString(text);
        return *this;
    }
    std::string text() {
        coded_.Trim();
        return text_;
    }

private:
    std::string text_;
    google::protobuf::io::StringOutputStream stream_{&text_};
    google::protobuf::io::CodedOutputStream coded_{&stream_};
};

/// What the whole payload comes to, read as its only chunk.
std::optional<std::string> only_chunk(const std::string& text) {
    chunk_assembler to;
    const auto result = read(text, to);
    EXPECT_EQ(result.code, errc::ok) << result.text;
    if (!to.complete()) return std::nullopt;
    return std::string(to.take().view());
}

errc code_of(const std::string& text, chunk_assembler to = chunk_assembler()) { return read(text, to).code; }

/// A payload of runs of 1, 2, 3, ... bytes.
payload in_runs(const bytes& all) {
    payload out;
    for (std::size_t at = 0, length = 1; at < all.size(); at += length, ++length) out.append(all.slice(at, length));
    return out;
}

/// Memory that counts how often its owner was released.
struct counted_memory {
    explicit counted_memory(std::size_t size) : memory(pattern(size)) {}

    bytes borrowed() {
        return bytes::borrow(memory, std::shared_ptr<const void>(memory.data(), [this](const void*) { ++released; }));
    }

    std::vector<std::uint8_t> memory;
    std::atomic<int> released{0};
};

// --- the protocol's names ------------------------------------------------------------------------------------------------------

TEST(wire_names, are_those_of_the_proto_file) {
    const auto* service = researcher::TaskRequest::descriptor()->file()->FindServiceByName("ResearcherService");
    ASSERT_NE(service, nullptr);
    const auto path = [&](const char* method) -> std::string {
        const auto* found = service->FindMethodByName(method);
        return found ? "/" + service->full_name() + "/" + found->name() : "none";
    };
    EXPECT_EQ(wire::get_task_unary, path("GetTaskUnary"));
    EXPECT_EQ(wire::reply_task, path("ReplyTask"));
    EXPECT_EQ(wire::send_feedback, path("Feedback"));
    EXPECT_STREQ(wire::protocol_version, "7");
    EXPECT_EQ(wire::max_grpc_message_bytes, 104'857'600);
}

// --- writing -----------------------------------------------------------------------------------------------------------------

TEST(wire_write, is_what_protobuf_would_write) {
    for (const std::uint32_t length : {0U, 1U, 127U, 128U, 16383U, 16384U, default_length}) {
        const auto data = bytes::own(pattern(length));
        for (const auto& [size, iteration] : std::initializer_list<std::pair<std::int32_t, std::int32_t>>{
                 {1, 1}, {300, 128}, {max_number, max_number}}) {
            const auto text = written({0, length, size, iteration}, data);
            ASSERT_TRUE(text == serialized(size, iteration, std::string(data.view()))) << length;
            ASSERT_TRUE(text == serialized<researcher::TaskResult>(size, iteration, std::string(data.view())))
                << length;
        }
    }
}

TEST(wire_write, can_be_parsed_by_protobuf) {
    const auto data = bytes::own(pattern(100'000));
    grpc::ByteBuffer out;
    wire::write_chunk(out, {0, 100'000, 7, 3}, data, 0);
    researcher::TaskResult parsed;
    ASSERT_TRUE(wire::parse(out, parsed));
    EXPECT_EQ(parsed.size(), 7);
    EXPECT_EQ(parsed.iteration(), 3);
    EXPECT_TRUE(parsed.bytes_() == data.view());
}

TEST(wire_write, an_empty_chunk_has_no_data_field) {
    grpc::ByteBuffer out;
    wire::write_chunk(out, {0, 0, 1, 1}, payload(), 0);
    EXPECT_EQ(text_of(out), fields().varint(1, 1).varint(2, 1).text());
    EXPECT_EQ(slices_of(out).size(), 1U);
}

TEST(wire_write, takes_the_place_of_what_the_buffer_held) {
    auto out = buffer_of("something else");
    wire::write_chunk(out, {0, 1, 1, 1}, bytes{9}, 0);
    EXPECT_EQ(text_of(out), serialized(1, 1, "\x09"));
}

TEST(wire_write, takes_the_chunks_range_of_the_content) {
    const auto data = bytes::own(pattern(1000));
    EXPECT_EQ(written({5000, 10, 9, 8}, data, 123), serialized(9, 8, std::string(data.slice(123, 10).view())));
}

TEST(wire_write, borrows_the_payloads_memory) {
    const auto data = bytes::own(pattern(100'000));
    grpc::ByteBuffer out;
    wire::write_chunk(out, {0, 50'000, 2, 1}, data, 10'000);
    const auto slices = slices_of(out);
    ASSERT_EQ(slices.size(), 2U);
    EXPECT_EQ(slices[1].begin(), data.data() + 10'000);
    EXPECT_EQ(slices[1].size(), 50'000U);
}

TEST(wire_write, borrows_even_a_few_bytes) {
    const auto data = bytes::own(pattern(100));
    grpc::ByteBuffer out;
    wire::write_chunk(out, {0, 1, 100, 1}, data, 42);
    EXPECT_EQ(slices_of(out).at(1).begin(), data.data() + 42);
}

TEST(wire_write, borrows_memory_that_nobody_owns) {
    static constexpr std::string_view text = "as long as the program";
    grpc::ByteBuffer out;
    wire::write_chunk(out, {0, 4, 1, 1}, bytes::borrow_static(text), 3);
    EXPECT_EQ(slices_of(out).at(1).begin(), reinterpret_cast<const std::uint8_t*>(text.data()) + 3);
}

TEST(wire_write, borrows_each_of_many_runs) {
    const auto data = bytes::own(pattern(5050));  // runs of 1 to 100 bytes
    const auto content = in_runs(data);
    grpc::ByteBuffer out;
    wire::write_chunk(out, {0, 5000, 1, 1}, content, 20);
    const auto slices = slices_of(out);
    const auto* expected = data.data() + 20;
    for (std::size_t i = 1; i < slices.size(); ++i) {
        EXPECT_EQ(slices[i].begin(), expected);
        expected += slices[i].size();
    }
    EXPECT_EQ(expected, data.data() + 5020);
    EXPECT_EQ(slices.size(), 1 + 95U);  // the first five runs are 15 bytes
    EXPECT_TRUE(text_of(out) == serialized(1, 1, std::string(data.slice(20, 5000).view())));
}

TEST(wire_write, cuts_runs_at_the_chunks_ends) {
    const auto data = bytes::own(pattern(5000));
    for (const auto& content : {in_runs(data), payload(data)}) {
        ferry::chunk_cutter<64> cutter(content.size());
        chunk_assembler to;
        std::string whole;
        while (!cutter.done()) {
            const auto part = cutter.next();
            grpc::ByteBuffer carried;
            wire::write_chunk(carried, part, content, part.offset);
            researcher::TaskResponse parsed;
            ASSERT_TRUE(wire::parse(carried, parsed));
            ASSERT_EQ(parsed.size(), 79);
            ASSERT_EQ(parsed.iteration(), part.iteration);
            whole += parsed.bytes_();
            const auto result = wire::read_chunk(carried, to);
            ASSERT_EQ(result.code, errc::ok) << result.text;
        }
        EXPECT_TRUE(whole == data.view());
        ASSERT_TRUE(to.complete());
        EXPECT_TRUE(to.take() == data);
    }
}

// --- who owns what is written ------------------------------------------------------------------------------------------------

TEST(wire_ownership, lasts_as_long_as_the_buffer) {
    counted_memory counted(1000);
    grpc::ByteBuffer out;
    wire::write_chunk(out, {0, 1000, 1, 1}, counted.borrowed(), 0);
    EXPECT_EQ(counted.released, 0);
    EXPECT_EQ(text_of(out), serialized(1, 1, std::string(counted.memory.begin(), counted.memory.end())));
    out.Clear();
    EXPECT_EQ(counted.released, 1);
}

TEST(wire_ownership, is_shared_by_copies_slices_and_the_payload) {
    counted_memory counted(1000);
    {
        std::vector<grpc::Slice> slices;
        payload content(counted.borrowed());
        {
            grpc::ByteBuffer copy;
            {
                grpc::ByteBuffer out;
                wire::write_chunk(out, {0, 10, 2, 1}, content, 0);
                wire::write_chunk(out, {10, 990, 2, 2}, content, 10);
                copy = out;
            }
            content = payload();
            EXPECT_EQ(counted.released, 0);
            slices = slices_of(copy);
        }
        EXPECT_EQ(counted.released, 0);
        EXPECT_EQ(slices.at(1).begin(), counted.memory.data() + 10);
    }
    EXPECT_EQ(counted.released, 1);
}

TEST(wire_ownership, is_of_each_run_by_itself) {
    std::vector<std::unique_ptr<counted_memory>> runs;
    payload content;
    for (int i = 0; i < 5; ++i) {
        runs.push_back(std::make_unique<counted_memory>(10));
        content.append(runs.back()->borrowed());
    }
    grpc::ByteBuffer out;
    wire::write_chunk(out, {15, 20, 1, 1}, content, 15);
    content = payload();
    const auto released = [&] {
        std::vector<int> out_of;
        for (const auto& each : runs) out_of.push_back(each->released);
        return out_of;
    };
    EXPECT_THAT(released(), testing::ElementsAre(1, 0, 0, 0, 1));
    out.Clear();
    EXPECT_THAT(released(), testing::Each(1));
}

TEST(wire_ownership, ends_once_though_threads_share_it_concurrent) {
    constexpr std::size_t threads = 4;
    for (int round = 0; round < 50; ++round) {
        counted_memory counted(100);
        {
            std::latch together(threads);
            std::vector<std::jthread> all;
            payload content(counted.borrowed());
            for (std::size_t i = 0; i < threads; ++i) {
                all.emplace_back([&together, content] {
                    together.arrive_and_wait();
                    grpc::ByteBuffer out;
                    wire::write_chunk(out, {0, 100, 1, 1}, content, 0);
                    const grpc::ByteBuffer copy(out);  // NOLINT(performance-unnecessary-copy-initialization)
                    out.Clear();
                });
            }
        }
        EXPECT_EQ(counted.released, 1);
    }
}

// --- reading -----------------------------------------------------------------------------------------------------------------

TEST(wire_read, what_protobuf_wrote) {
    for (const std::size_t length : {0U, 1U, 127U, 128U, 100'000U}) {
        const auto data = bytes::own(pattern(length));
        EXPECT_EQ(only_chunk(serialized(1, 1, std::string(data.view()))), data.view());
        EXPECT_EQ(only_chunk(serialized<researcher::TaskResult>(1, 1, std::string(data.view()))), data.view());
    }
}

TEST(wire_read, puts_chunks_together) {
    chunk_assembler to;
    ASSERT_EQ(read(serialized(3, 1, "one "), to).code, errc::ok);
    EXPECT_TRUE(to.in_progress());
    ASSERT_EQ(read(serialized(3, 2, ""), to).code, errc::ok);
    ASSERT_EQ(read(serialized(3, 3, "three"), to).code, errc::ok);
    ASSERT_TRUE(to.complete());
    EXPECT_EQ(to.take().view(), "one three");
    ASSERT_EQ(read(serialized(1, 1, "another"), to).code, errc::ok);
    EXPECT_EQ(to.take().view(), "another");
}

TEST(wire_read, from_slices_of_any_size) {
    const auto data = bytes::own(pattern(3000));
    const auto text = serialized(1, 1, std::string(data.view()));
    for (const std::size_t slice_bytes : {1U, 2U, 3U, 7U, 100U, 2999U}) {
        chunk_assembler to;
        const auto result = read(text, to, slice_bytes);
        ASSERT_EQ(result.code, errc::ok) << result.text;
        ASSERT_TRUE(to.complete());
        EXPECT_TRUE(to.take() == data) << slice_bytes;
    }
}

TEST(wire_read, from_slices_some_of_which_are_empty) {
    const auto text = serialized(1, 1, "data");
    std::vector<grpc::Slice> slices;
    for (const char c : text) {
        slices.emplace_back();
        slices.emplace_back(std::string(1, c));
    }
    slices.emplace_back();
    grpc::ByteBuffer in(slices.data(), slices.size());
    chunk_assembler to;
    ASSERT_EQ(wire::read_chunk(in, to).code, errc::ok);
    EXPECT_EQ(to.take().view(), "data");
}

TEST(wire_read, starts_a_chunk_over_that_was_begun) {
    const auto data = bytes::own(pattern(100'000));
    chunk_assembler to;
    ASSERT_TRUE(to.begin(100'000, 1));
    ASSERT_TRUE(to.write(pattern(50'000, 2)));
    const auto held = to.memory_bytes();
    ASSERT_EQ(read(serialized(1, 1, std::string(data.view())), to, 1000).code, errc::ok);
    EXPECT_EQ(to.memory_bytes(), held) << "it's the same place";
    EXPECT_TRUE(to.take() == data);
}

TEST(wire_read, writes_straight_to_a_file) {
    const ferry_test::temporary_folder folder;
    const auto data = bytes::own(pattern(300'000));
    chunk_assembler to({}, std::make_shared<ferry::spool>(ferry::spool_options{folder.path(), 100'000}));
    std::string text = serialized(2, 1, std::string(data.slice(0, 150'000).view()));
    ASSERT_EQ(read(text, to, 777).code, errc::ok) << to.text();
    EXPECT_TRUE(to.spooled());
    EXPECT_EQ(to.memory_bytes(), 0U);
    ASSERT_EQ(read(serialized(2, 2, std::string(data.slice(150'000).view())), to).code, errc::ok) << to.text();
    EXPECT_TRUE(to.take() == data);
}

TEST(wire_read, passes_on_that_a_file_could_not_be_written) {
    const ferry_test::temporary_folder folder;
    chunk_assembler to({}, std::make_shared<ferry::spool>(ferry::spool_options{folder.path(), 1000}));
    const ferry_test::file_size_limit full(50'000);
    const auto result = read(serialized(1, 1, std::string(100'000, 'x')), to, 10'000);
    EXPECT_EQ(result.code, errc::spool_failed);
    EXPECT_THAT(result.text, HasSubstr("File too large"));
}

TEST(wire_read, leaves_the_received_buffer_as_it_was) {
    const auto text = serialized(1, 1, "data");
    auto in = buffer_of(text, 2);
    chunk_assembler to;
    ASSERT_EQ(wire::read_chunk(in, to).code, errc::ok);
    EXPECT_EQ(text_of(in), text);
}

TEST(wire_read, fields_in_any_order) {
    std::vector<std::string> parts{fields().varint(1, 1).text(), fields().varint(2, 1).text(),
                                   fields().data(3, "data").text()};
    std::sort(parts.begin(), parts.end());
    int orders = 0;
    do {
        EXPECT_EQ(only_chunk(parts[0] + parts[1] + parts[2]), "data");
        ++orders;
    } while (std::next_permutation(parts.begin(), parts.end()));
    EXPECT_EQ(orders, 6);
}

TEST(wire_read, skips_unknown_fields) {
    const std::vector<std::string> unknown{
        fields().varint(4, std::numeric_limits<std::uint64_t>::max()).text(),
        fields().fixed64(1000).text(),
        fields().data(1001, "unknown").text(),
        fields().data(5, "").text(),
        fields().group(6, fields().varint(3, 1).group(7, fields().data(3, "inside").text()).text()).text(),
        fields().fixed32((1U << 29) - 1).text(),
        // Known numbers of another type are unknown fields, too.
        fields().data(1, "size").text(),
        fields().fixed32(2).text(),
        fields().varint(3, 5).text(),
    };
    std::string all;
    for (const auto& each : unknown) {
        all += each;
        EXPECT_EQ(only_chunk(each + serialized(1, 1, "data")), "data");
        EXPECT_EQ(only_chunk(serialized(1, 1, "data") + each), "data");
    }
    EXPECT_EQ(only_chunk(all + serialized(1, 1, "data") + all), "data");
}

TEST(wire_read, the_last_of_repeated_fields_wins) {
    EXPECT_EQ(only_chunk(fields().data(3, "first").raw(serialized(1, 1, "second")).text()), "second");
    EXPECT_EQ(only_chunk(fields().raw(serialized(1, 1, "long, and first")).data(3, "short").text()), "short");
    EXPECT_EQ(only_chunk(fields().raw(serialized(1, 1, "first")).data(3, "").text()), "");
    EXPECT_EQ(only_chunk(serialized(9, 5, "first") + serialized(1, 1, "second")), "second");
}

TEST(wire_read, an_absent_data_field_is_an_empty_chunk) {
    EXPECT_EQ(only_chunk(fields().varint(1, 1).varint(2, 1).text()), "");
    EXPECT_EQ(only_chunk(fields().varint(1, 1).varint(2, 1).data(3, "").text()), "");
    chunk_assembler to;
    ASSERT_EQ(read(serialized(2, 1, "one"), to).code, errc::ok);
    ASSERT_EQ(read(fields().varint(1, 2).varint(2, 2).text(), to).code, errc::ok);
    EXPECT_EQ(to.take().view(), "one");
    to.begin(5, 1);  // left over
    ASSERT_EQ(read(fields().varint(1, 1).varint(2, 1).text(), to).code, errc::ok);
    EXPECT_EQ(to.take().size(), 0U);
}

TEST(wire_read, numbers_are_cut_to_32_bits_as_protobuf_does) {
    EXPECT_EQ(only_chunk(fields().varint(1, (1ULL << 32) + 1).varint(2, (7ULL << 40) + 1).data(3, "data").text()),
              "data");
}

TEST(wire_read, refuses_numbers_that_make_no_chunk) {
    EXPECT_EQ(code_of(""), errc::bad_chunk);
    EXPECT_EQ(code_of(serialized(0, 0, "data")), errc::bad_chunk);
    EXPECT_EQ(code_of(serialized(0, 1, "data")), errc::bad_chunk);
    EXPECT_EQ(code_of(serialized(1, 0, "data")), errc::bad_chunk);
    EXPECT_EQ(code_of(serialized(-1, 1, "data")), errc::bad_chunk);
    EXPECT_EQ(code_of(serialized(1, -1, "data")), errc::bad_chunk);
    EXPECT_EQ(code_of(serialized(std::numeric_limits<std::int32_t>::min(), 1, "data")), errc::bad_chunk);
    EXPECT_EQ(code_of(serialized(2, 2, "data")), errc::bad_chunk);
    chunk_assembler to;
    ASSERT_EQ(read(serialized(3, 1, "data"), to).code, errc::ok);
    const auto result = read(serialized(4, 2, "data"), to);
    EXPECT_EQ(result.code, errc::bad_chunk);
    EXPECT_THAT(result.text, HasSubstr("chunk 2 of 4"));
}

TEST(wire_read, refuses_what_is_beyond_the_limits) {
    chunk_assembler to(ferry::chunk_limits{10, 10});
    ASSERT_EQ(read(serialized(2, 1, "12345"), to).code, errc::ok);
    const auto result = read(serialized(2, 2, "678901"), to);
    EXPECT_EQ(result.code, errc::too_large);
    EXPECT_THAT(result.text, HasSubstr("limit of 10 bytes"));
}

TEST(wire_read, refuses_lengths_beyond_the_buffer_before_it_takes_memory) {
    for (const std::uint64_t length : {6ULL, 1000ULL, (1ULL << 31) - 1, 1ULL << 31, (1ULL << 32) - 1, (1ULL << 32) + 5,
                                       std::numeric_limits<unsigned long long>::max()}) {
        const auto text = fields().varint(1, max_number).varint(2, 1).claimed(3, length, "12345").text();
        chunk_assembler to(ferry::chunk_limits{100, 100});  // would say too_large if it were asked
        const auto result = read(text, to);
        EXPECT_EQ(result.code, errc::protocol_error) << length;
        EXPECT_THAT(result.text, HasSubstr("not a valid protobuf message"));
    }
    EXPECT_EQ(code_of(fields().varint(1, 1).varint(2, 1).claimed(1000, 6, "12345").text()), errc::protocol_error);
}

TEST(wire_read, refuses_what_is_no_message) {
    const auto good = serialized(1, 1, "data");
    EXPECT_EQ(code_of(good + std::string(1, '\0')), errc::protocol_error) << "field 0";
    EXPECT_EQ(code_of(good + fields().varint(0, 1).text()), errc::protocol_error) << "field 0";
    EXPECT_EQ(code_of(good + fields().tag(4, 4).text()), errc::protocol_error) << "the end of no group";
    EXPECT_EQ(code_of(good + fields().tag(4, 3).text()), errc::protocol_error) << "a group without an end";
    EXPECT_EQ(code_of(good + fields().tag(4, 3).tag(5, 4).text()), errc::protocol_error) << "another group's end";
    EXPECT_EQ(code_of(good + fields().tag(4, 6).text()), errc::protocol_error) << "a type that doesn't exist";
    EXPECT_EQ(code_of(good + fields().tag(1, 0).raw(std::string(11, '\xff')).text()), errc::protocol_error)
        << "a number without an end";
    std::string nested;
    for (int i = 0; i < 100'000; ++i) nested += fields().tag(4, 3).text();
    EXPECT_EQ(code_of(good + nested), errc::protocol_error) << "groups without an end";
}

TEST(wire_read, a_buffer_that_holds_nothing_is_no_chunk) {
    grpc::ByteBuffer in;
    chunk_assembler to;
    EXPECT_EQ(wire::read_chunk(in, to).code, errc::protocol_error);
}

/// Compares with the generated class: both take it, with the same data, or neither does.
void expect_what_protobuf_reads(const std::string& text, std::size_t slice_bytes) {
    researcher::TaskResponse expected;
    const bool valid = expected.ParseFromString(text);
    chunk_assembler to(ferry::chunk_limits{1 << 20, 1 << 20});
    const auto result = read(text, to, slice_bytes);
    if (!valid) {
        EXPECT_EQ(result.code, errc::protocol_error) << result.text;
    } else if (expected.size() < 1 || expected.iteration() != 1) {
        EXPECT_EQ(result.code, errc::bad_chunk) << result.text;
    } else {
        ASSERT_EQ(result.code, errc::ok) << result.text;
        EXPECT_EQ(to.received(), expected.bytes_().size());
        EXPECT_EQ(to.complete(), expected.size() == 1);
        if (to.complete()) {
            EXPECT_TRUE(to.take().view() == expected.bytes_());
        }
    }
}

TEST(wire_read, agrees_with_protobuf_on_every_beginning_of_a_message) {
    const auto text = fields()
                          .raw(serialized(300, 1, std::string(200, 'x')))
                          .data(1000, "unknown")
                          .fixed64(4)
                          .group(6, "\x08\x01")
                          .text();
    for (std::size_t length = 0; length <= text.size(); ++length) {
        SCOPED_TRACE(length);
        expect_what_protobuf_reads(text.substr(0, length), static_cast<std::size_t>(-1));
        expect_what_protobuf_reads(text.substr(0, length), 1);
    }
}

TEST(wire_read, agrees_with_protobuf_on_damaged_messages) {
    const auto good = fields()
                          .data(3, "twice")
                          .raw(serialized(1, 1, "some data"))
                          .data(9, "no")
                          .fixed32(4)
                          .group(6, "\x08\x01")
                          .text();
    const auto noise = pattern(60'000);
    for (std::size_t at = 0; at + 6 <= noise.size(); at += 6) {
        auto text = good;
        text[noise[at] % text.size()] = static_cast<char>(noise[at + 1]);
        if (noise[at + 2] % 2 == 0) text[noise[at + 3] % text.size()] = static_cast<char>(noise[at + 4] % 32);
        SCOPED_TRACE(ferry_test::to_hex(bytes::copy(text)));
        expect_what_protobuf_reads(text, 1U + noise[at + 5] % 20);
        if (testing::Test::HasFailure()) return;
    }
}

// --- small messages ------------------------------------------------------------------------------------------------------------

TEST(wire_message, comes_back_as_it_went) {
    researcher::TaskRequest request;
    request.set_node("node-1");
    request.set_protocol_version("7");
    const auto carried = serialized(request);
    EXPECT_EQ(text_of(carried), request.SerializeAsString());
    researcher::TaskRequest got;
    ASSERT_TRUE(wire::parse(carried, got));
    EXPECT_TRUE(MessageDifferencer::Equals(got, request));
    ASSERT_TRUE(wire::parse(buffer_of(request.SerializeAsString(), 1), got));
    EXPECT_TRUE(MessageDifferencer::Equals(got, request));
    EXPECT_TRUE(wire::parse(carried, got)) << "reading takes nothing away";
}

TEST(wire_message, says_where_there_is_none) {
    researcher::TaskRequest got;
    EXPECT_FALSE(wire::parse(buffer_of("\x0a\x7fshort"), got));
    EXPECT_FALSE(wire::parse(grpc::ByteBuffer(), got));
}

TEST(wire_message, may_be_empty) {
    const auto carried = wire::empty_message();
    EXPECT_TRUE(carried.Valid());
    EXPECT_EQ(carried.Length(), 0U);
    researcher::Empty got;
    EXPECT_TRUE(wire::parse(carried, got));
    EXPECT_TRUE(wire::parse(serialized(researcher::Empty()), got));
}

// --- status ------------------------------------------------------------------------------------------------------------------

struct status_row {
    errc reason;
    grpc::StatusCode code;
    errc back;
};

constexpr std::array status_table{
    status_row{errc::ok, grpc::StatusCode::OK, errc::ok},
    status_row{errc::not_started, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::invalid_argument, grpc::StatusCode::INVALID_ARGUMENT, errc::protocol_error},
    status_row{errc::bind_failed, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::bad_credentials, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::connection_failed, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::node_unknown, grpc::StatusCode::UNKNOWN, errc::node_unknown},
    status_row{errc::node_disconnected, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::superseded, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::stream_broken, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::unconfirmed, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::idle_timeout, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::bad_chunk, grpc::StatusCode::INVALID_ARGUMENT, errc::protocol_error},
    status_row{errc::too_large, grpc::StatusCode::RESOURCE_EXHAUSTED, errc::too_large},
    status_row{errc::queue_full, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::encode_failed, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::decode_failed, grpc::StatusCode::INVALID_ARGUMENT, errc::protocol_error},
    status_row{errc::not_permitted, grpc::StatusCode::PERMISSION_DENIED, errc::not_permitted},
    status_row{errc::ownership_lost, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::store_failed, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::source_failed, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::spool_failed, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::expired, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::refused, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::refused_for_now, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::lease_lost, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::checksum_differs, grpc::StatusCode::DATA_LOSS, errc::checksum_differs},
    status_row{errc::cancelled, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::stopped, grpc::StatusCode::UNAVAILABLE, errc::connection_failed},
    status_row{errc::protocol_error, grpc::StatusCode::INVALID_ARGUMENT, errc::protocol_error},
    status_row{errc::deadline_exceeded, grpc::StatusCode::DEADLINE_EXCEEDED, errc::idle_timeout},
};
static_assert(status_table.size() == static_cast<std::size_t>(errc::deadline_exceeded) + 1, "a row for every errc");

TEST(wire_status, tells_each_reason_and_its_text) {
    for (std::size_t i = 0; i < status_table.size(); ++i) {
        const auto& row = status_table[i];
        ASSERT_EQ(static_cast<std::size_t>(row.reason), i);
        const auto status = wire::to_status(row.reason, "what to do");
        EXPECT_EQ(status.error_code(), row.code) << to_string(row.reason);
        EXPECT_EQ(status.error_message(),
                  row.reason == errc::ok ? std::string() : std::string(to_string(row.reason)) + ": what to do");
        EXPECT_EQ(wire::to_errc(status), row.back) << to_string(row.reason);
    }
}

TEST(wire_status, of_any_peer_means_something) {
    const auto meaning = [](grpc::StatusCode code) { return wire::to_errc(grpc::Status(code, "")); };
    EXPECT_EQ(meaning(grpc::StatusCode::UNAUTHENTICATED), errc::not_permitted);
    EXPECT_EQ(meaning(grpc::StatusCode::DEADLINE_EXCEEDED), errc::idle_timeout);
    EXPECT_EQ(meaning(grpc::StatusCode::CANCELLED), errc::connection_failed);
    for (const auto code : {grpc::StatusCode::INTERNAL, grpc::StatusCode::UNIMPLEMENTED, grpc::StatusCode::ABORTED,
                            grpc::StatusCode::NOT_FOUND, grpc::StatusCode::ALREADY_EXISTS,
                            grpc::StatusCode::FAILED_PRECONDITION, grpc::StatusCode::OUT_OF_RANGE}) {
        EXPECT_EQ(meaning(code), errc::stream_broken) << code;
    }
}

// --- feedback ------------------------------------------------------------------------------------------------------------------

/// There and back over the wire.
std::optional<ferry::feedback> carried(const ferry::feedback& from) {
    researcher::FeedbackMessage got;
    ferry::feedback out;
    if (!wire::parse(serialized(wire::to_proto(from, "a researcher")), got)) return std::nullopt;
    if (!wire::from_proto(got, out)) return std::nullopt;
    return out;
}

TEST(wire_feedback, a_log_line_comes_back_as_it_went) {
    const auto got = carried(ferry::log_line{"node", "WARNING", "a text, größer"});
    ASSERT_TRUE(got && std::holds_alternative<ferry::log_line>(*got));
    const auto& line = std::get<ferry::log_line>(*got);
    EXPECT_EQ(line.node_id, "node");
    EXPECT_EQ(line.level, "WARNING");
    EXPECT_EQ(line.message, "a text, größer");
}

TEST(wire_feedback, scalars_come_back_as_they_went) {
    ferry::scalars sent;
    sent.node_id = "node";
    sent.node_name = "the node's name";
    sent.experiment_id = "experiment";
    sent.metric = {{"loss", 0.25F}, {"accuracy", -1.5F}, {"", std::numeric_limits<float>::infinity()}};
    sent.epoch = 3;
    sent.total_samples = 1000;
    sent.batch_samples = 32;
    sent.num_batches = 31;
    sent.num_samples_trained = 640;
    sent.iteration = 20;
    // Each flag by itself: none may stand for another.
    for (auto flag : {&ferry::scalars::train, &ferry::scalars::test, &ferry::scalars::test_on_local_updates,
                      &ferry::scalars::test_on_global_updates}) {
        auto with = sent;
        with.*flag = true;
        const auto back = carried(with);
        ASSERT_TRUE(back && std::holds_alternative<ferry::scalars>(*back));
        const auto& got = std::get<ferry::scalars>(*back);
        EXPECT_EQ(got.node_id, sent.node_id);
        EXPECT_EQ(got.node_name, sent.node_name);
        EXPECT_EQ(got.experiment_id, sent.experiment_id);
        EXPECT_EQ(got.metric, sent.metric);
        EXPECT_EQ(got.epoch, 3);
        EXPECT_EQ(got.total_samples, 1000);
        EXPECT_EQ(got.batch_samples, 32);
        EXPECT_EQ(got.num_batches, 31);
        EXPECT_EQ(got.num_samples_trained, 640);
        EXPECT_EQ(got.iteration, 20);
        EXPECT_EQ(got.train, with.train);
        EXPECT_EQ(got.test, with.test);
        EXPECT_EQ(got.test_on_local_updates, with.test_on_local_updates);
        EXPECT_EQ(got.test_on_global_updates, with.test_on_global_updates);
    }
}

TEST(wire_feedback, absent_is_not_zero) {
    ferry::scalars odd;
    odd.node_name = odd.experiment_id = "caf\xe9";
    odd.metric = {{"caf\xe9", 1.0}, {"loss", 0.25}};
    const auto mended = carried(odd);
    ASSERT_TRUE(mended);
    EXPECT_EQ(std::get<ferry::scalars>(*mended).node_name, "caf?");
    EXPECT_EQ(std::get<ferry::scalars>(*mended).experiment_id, "caf?");
    EXPECT_EQ(std::get<ferry::scalars>(*mended).metric, (decltype(odd.metric){{"caf?", 1.0}, {"loss", 0.25}}));
    const auto absent = carried(ferry::scalars{});
    ASSERT_TRUE(absent);
    EXPECT_FALSE(std::get<ferry::scalars>(*absent).epoch.has_value());
    EXPECT_FALSE(std::get<ferry::scalars>(*absent).num_samples_trained.has_value());
    ferry::scalars zero;
    zero.epoch = 0;
    zero.num_samples_trained = 0;
    const auto got = carried(zero);
    ASSERT_TRUE(got);
    EXPECT_EQ(std::get<ferry::scalars>(*got).epoch, 0);
    EXPECT_EQ(std::get<ferry::scalars>(*got).num_samples_trained, 0);
}

TEST(wire_feedback, names_the_protocol_and_the_researcher) {
    for (const ferry::feedback& each : {ferry::feedback(ferry::log_line{}), ferry::feedback(ferry::scalars{})}) {
        const auto known = wire::to_proto(each, "a researcher");
        EXPECT_EQ(known.protocol_version(), "7");
        EXPECT_EQ(known.researcher_id(), "a researcher");
        EXPECT_FALSE(wire::to_proto(each, "").has_researcher_id());
        EXPECT_EQ(known.has_log(), std::holds_alternative<ferry::log_line>(each)) << "also where it is empty";
        EXPECT_EQ(known.has_scalar(), std::holds_alternative<ferry::scalars>(each)) << "also where it is empty";
    }
}

TEST(wire_feedback, an_empty_message_is_none) {
    researcher::FeedbackMessage empty;
    empty.set_protocol_version("7");
    ferry::feedback out = ferry::log_line{"untouched", "", ""};
    EXPECT_FALSE(wire::from_proto(empty, out));
    EXPECT_EQ(node_of(out), "untouched");
}

TEST(wire_feedback, a_log_line_goes_out_as_json_as_a_python_researcher_reads_it) {
    const auto out = wire::to_proto(ferry::log_line{"n\"1", "INFO", "a \xff line\n"}, "");
    const auto text = nlohmann::json::parse(out.log().msg());
    ASSERT_EQ(text.size(), 5U);
    EXPECT_EQ(text.at("node_id"), "n\"1");
    EXPECT_EQ(text.at("name"), "ferry");
    EXPECT_EQ(text.at("level"), "INFO");
    EXPECT_EQ(text.at("message"), "a \uFFFD line\n") << "what is no UTF-8 is replaced";
    EXPECT_TRUE(
        std::regex_match(text.at("asctime").get<std::string>(), std::regex(R"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})")));
}

TEST(wire_feedback, a_log_line_of_ferrys_own_comes_in_as_it_was_given) {
    for (const std::string text : {"plain", "", "with \"ferry\" in it", R"({"name": "ferry"})"}) {
        ferry::feedback in;
        ASSERT_TRUE(wire::from_proto(wire::to_proto(ferry::log_line{"n", "INFO", text}, ""), in));
        EXPECT_EQ(std::get<ferry::log_line>(in).message, text);
    }
}

TEST(wire_feedback, a_log_line_of_another_make_comes_in_untouched) {
    for (const std::string text :
         {"plain", R"({"asctime": "t", "node_id": "n", "name": "fedbiomed", "level": "INFO", "message": "m"})",
          R"({"name": "ferry", "message": "m"})", R"({"name": "ferry")", R"(["ferry"])"}) {
        researcher::FeedbackMessage from;
        from.mutable_log()->set_msg(text);
        ferry::feedback in;
        ASSERT_TRUE(wire::from_proto(from, in));
        EXPECT_EQ(std::get<ferry::log_line>(in).message, text);
    }
}

/// Of this process so far, in bytes.
std::uint64_t most_memory() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    return static_cast<std::uint64_t>(used.ru_maxrss) * 1024;
}

TEST(wire_feedback, a_log_line_takes_no_more_memory_for_what_is_nested_in_it) {
    if (ferry_test::sanitized) GTEST_SKIP() << "a sanitizer's malloc has memory of its own";
    std::string deep = R"(["ferry",)" + std::string(4'000'000, '['), wide = R"({"name": "ferry")";
    for (int i = 0; i < 200'000; ++i) wide += R"(, "k)" + std::to_string(i) + R"(": [1])";
    wide += "}";
    const auto before = most_memory();
    for (const auto* text : {&deep, &wide}) {
        researcher::FeedbackMessage from;
        from.mutable_log()->set_msg(*text);
        ferry::feedback in;
        ASSERT_TRUE(wire::from_proto(from, in));
        EXPECT_TRUE(std::get<ferry::log_line>(in).message == *text);
    }
    EXPECT_LT(most_memory() - before, 100'000'000U);
}

TEST(wire_feedback, a_flat_object_with_more_than_a_lines_texts_is_anothers) {
    const std::string text =
        R"({"asctime": "t", "node_id": "n", "name": "ferry", "level": "l", "message": "m", "x": {}})";
    researcher::FeedbackMessage from;
    from.mutable_log()->set_msg(text);
    ferry::feedback in;
    ASSERT_TRUE(wire::from_proto(from, in));
    EXPECT_EQ(std::get<ferry::log_line>(in).message, text);
}

// --- texts ------------------------------------------------------------------------------------------------------------------

TEST(wire_texts, are_mended_and_cut_on_their_way_to_a_peer) {
    const auto status = wire::to_status(errc::decode_failed, "caf\xe9 " + std::string(5000, 'x'));
    EXPECT_THAT(status.error_message(), HasSubstr("caf? xxx"));
    EXPECT_LT(status.error_message().size(), 1100U);
}

}  // namespace
