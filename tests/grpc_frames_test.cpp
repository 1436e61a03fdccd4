#include <ferry/detail/grpc_frames.hpp>

#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace {

namespace wire = ferry::wire;
using ferry::bytes;
using ferry::payload;
using google::protobuf::util::MessageDifferencer;

TEST(grpc_frames, small_tasks_are_what_protobuf_would_write) {
    struct row {
        std::shared_ptr<const payload> content;
        ferry::frames::delivery_head head;
    };
    payload runs;
    for (const auto* each : {"a", "", "few", "runs"}) runs.append(bytes::copy(each));
    const std::vector<row> rows = {
        {std::make_shared<payload>(runs), {7, 0, 8, 1, false}},
        {std::make_shared<payload>(bytes::copy(std::string(8192, 'x'))), {~std::uint64_t{0}, 0, 8192, 1'000'000, true}},
        {std::make_shared<payload>(), {1, 0, 0, 2, false}},
    };
    researcher::TaskResponse beside;
    beside.add_withdrawn(3);
    beside.add_answers()->set_reply(4);
    auto expected = beside;
    std::vector<wire::whole_task> tasks;
    grpc::ByteBuffer out;
    wire::serialize(out, beside, tasks);
    for (const auto& [content, head] : rows) {
        auto& whole = *expected.add_whole();
        whole.set_task(head.task);
        whole.set_attempt(static_cast<std::uint32_t>(head.attempt));
        whole.set_urgent(head.urgent);
        whole.set_content(std::string(content->flatten().view()));
        whole.set_checksum(ferry::detail::crc32c(0, content->flatten()));
        const auto before = out.Length();
        tasks.emplace_back(content, head);
        wire::serialize(out, beside, tasks);
        EXPECT_EQ(out.Length(), before + tasks.back().size());
        researcher::TaskResponse got;
        ASSERT_TRUE(wire::parse(out, got));
        EXPECT_TRUE(MessageDifferencer::Equals(got, expected)) << got.ShortDebugString();
    }
    EXPECT_EQ(rows[0].content.use_count(), 2) << "the bytes are borrowed until they are written";
}

TEST(grpc_frames, a_receipts_text_is_mended_and_cut) {
    researcher::Receipt receipt;
    wire::to_proto(ferry::frames::receipt{1, ferry::frames::verdict::refused, "caf\xe9 \xc3\xa9"}, receipt);
    EXPECT_EQ(receipt.text(), "caf? \xc3\xa9");
    wire::to_proto(ferry::frames::receipt{1, ferry::frames::verdict::refused, std::string(1023, 'x') + "\xc3\xa9"},
                   receipt);
    EXPECT_EQ(receipt.text(), std::string(1023, 'x')) << "no half of a letter";
}

}  // namespace
