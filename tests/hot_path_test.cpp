// What the hot paths may not do: take memory for each chunk beyond what gRPC's own buffers take, copy a payload on its way out,
// or copy it more than once on its way in. Counts are the same on every machine, unlike seconds.
//
// A program of its own: it puts its own malloc, memcpy and memmove in the place of the C library's, for all that it runs,
// gRPC too.
#include <ferry/dispatch.hpp>
#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>
#include <ferry/wire.hpp>

#include "instantiated.hpp"
#include "loopback.hpp"

#include <gtest/gtest.h>

#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace {

std::atomic<std::uint64_t> bytes_copied{0};
thread_local std::uint64_t allocations = 0;  // of this thread

using copy_function = void* (*)(void*, const void*, std::size_t);

/// The C library's own.
copy_function next(const char* name) { return reinterpret_cast<copy_function>(::dlsym(RTLD_NEXT, name)); }

}  // namespace

extern "C" {
void* __libc_malloc(std::size_t);
void* malloc(std::size_t size) {
    ++allocations;
    return __libc_malloc(size);
}
void* memmove(void* to, const void* from, std::size_t size) {
    static const copy_function real = next("memmove");
    bytes_copied.fetch_add(size, std::memory_order_relaxed);
    return real(to, from, size);
}
void* memcpy(void* to, const void* from, std::size_t size) { return memmove(to, from, size); }
}

namespace {

using namespace loopback;

constexpr std::uint64_t mib = 1 << 20;

/// How many allocations this thread makes in `work`.
template <class Work>
std::uint64_t allocations_in(Work&& work) {
    const auto before = allocations;
    work();
    return allocations - before;
}

template <class Work>
std::uint64_t copied_in(Work&& work) {
    const auto before = bytes_copied.load();
    work();
    return bytes_copied.load() - before;
}

/// What gRPC takes for a buffer of a header and of bytes that it borrows.
std::uint64_t allocations_of_two_slices() {
    static const char header[24] = {};
    static const std::vector<char> content(64);
    return allocations_in([&] {
        const grpc::Slice slices[] = {grpc::Slice(header, 20),
                                      grpc::Slice(const_cast<char*>(content.data()), content.size(), [](void*) {})};
        const grpc::ByteBuffer buffer(slices, 2);
    });
}

TEST(hot_path, counts_what_it_should) {
    EXPECT_EQ(allocations_in([] { std::vector<char> one(100); }), 1U);
    std::vector<char> from(1000, 'x'), to(1000);
    EXPECT_EQ(copied_in([&] { to = from; }), 1000U);
}

// --- on the way out -----------------------------------------------------------------------------------------------------

using cutter = ferry::chunk_cutter<65'536>;

TEST(hot_path, a_chunk_is_written_with_no_more_allocations_than_two_slices_take) {
    const ferry::payload content(some_bytes(4 * mib));
    const auto by_hand = allocations_of_two_slices();
    for (cutter chunks(content.size()); !chunks.done();) {
        const auto part = chunks.next();
        grpc::ByteBuffer poll, stream;
        EXPECT_LE(allocations_in([&] { ferry::wire::write_chunk(poll, part, content, part.offset); }), by_hand);
        const ferry::frames::delivery_head head{1, 0, content.size()};
        const bool says_more = part.iteration == 1 || part.last();  // than gRPC keeps in a slice itself
        EXPECT_LE(allocations_in([&] { ferry::wire::write_part(stream, part, head, 7, content, part.offset); }),
                  by_hand + (says_more ? 1 : 0));
    }
}

TEST(hot_path, a_chunk_is_written_without_a_copy_of_its_bytes) {
    const ferry::payload content(some_bytes(4 * mib));
    for (cutter chunks(content.size()); !chunks.done();) {
        const auto part = chunks.next();
        grpc::ByteBuffer out;
        EXPECT_LT(copied_in([&] {
                      ferry::wire::write_part(out, part, {1, 0, 4 * mib}, 7, content, part.offset);
                  }),
                  512U);
        EXPECT_GT(out.Length(), part.length);
    }
}

/// The core with nothing around it. Calls are numbers.
struct bare_core {
    struct types {
        using call = int;
        using reply_call = int;
        using ticket = int;
        using reply = int;
        using retry = ferry::no_retry;
        using chunk_size = ferry::max_message_bytes_length<65'536>;
    };
    struct sink {
        bare_core& in;
        void operator()(ferry::effects::acquire_journal e) { in.acquire = std::move(e); }
        void operator()(ferry::effects::append_task e) { in.stored = e.key; }
        void operator()(ferry::effects::update_task e) { in.stored = e.key; }
        void operator()(ferry::effects::send_part<int>) { ++in.parts; }
        template <class Other>
        void operator()(Other&&) {}
    };
    template <class Event>
    void step(Event event) {
        core.step(std::move(event), ferry::detail::now(), sink{*this});
    }
    /// What the store is asked for is done.
    void store() {
        while (const auto key = std::exchange(stored, std::nullopt)) step(ferry::events::store_done{*key, {}});
    }

    ferry::dispatch<types> core;
    std::optional<ferry::effects::acquire_journal> acquire;
    std::optional<ferry::task_key> stored;
    int parts = 0;
};

TEST(hot_path, the_core_takes_no_memory_for_a_chunk) {
    bare_core in;
    ferry::frames::hello hello;
    hello.window_bytes = 100 * mib;
    in.step(ferry::events::stream_opened<int>{1, "node", "c", hello});
    ASSERT_TRUE(in.acquire);
    in.step(ferry::events::journal_acquired{"node", {{}, 1, {}}});
    ferry::events::submitted<int> task{"node", std::make_shared<const ferry::payload>(some_bytes(8 * mib))};
    task.expires_after = std::chrono::hours(1);
    in.step(std::move(task));
    in.store();
    ASSERT_EQ(in.parts, 1);
    const std::string node = "node";
    while (in.parts < 100) {
        const ferry::events::range_sent<int> sent{1, node};
        const auto before = in.parts;
        EXPECT_EQ(allocations_in([&] { in.core.step(sent, ferry::detail::now(), bare_core::sink{in}); }), 0U);
        ASSERT_EQ(in.parts, before + 1);
    }
}

// --- all the way --------------------------------------------------------------------------------------------------------

TEST(hot_path, a_large_binary_is_copied_once_from_send_to_callback_and_once_back) {
    constexpr std::uint64_t size = 32 * mib, little = size / 50;
    const auto down = some_bytes(size, 1), up = some_bytes(size, 2);
    ferry::grpc_server server(server_options());
    server.start();
    std::atomic<std::uint64_t> until_callback{0};
    ferry::grpc_client node(client_options("node", server.port()), [&](const ferry::task& task) {
        until_callback = bytes_copied.load();
        EXPECT_EQ(task.message().at("data").get<ferry::bytes>().size(), size);
        task.reply({{"data", up}});
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto before = bytes_copied.load();
    const auto reply = server.request({{"data", down}}, "node").get();
    const auto after = bytes_copied.load();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(reply.message.at("data").get<ferry::bytes>().size(), size);
    EXPECT_GE(until_callback - before, size) << "it isn't counted";
    EXPECT_LT(until_callback - before, size + little);
    EXPECT_GE(after - until_callback, size) << "it isn't counted";
    EXPECT_LT(after - until_callback, size + little);
}

}  // namespace
