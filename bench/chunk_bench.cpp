// Chunking by itself: cutting a payload, writing its chunks as gRPC buffers, and putting chunks together, each beside the
// least work that could do. To measure a chunk size of your own, add it to the templates at the end.
#include <ferry/chunk.hpp>
#include <ferry/chunk_assembler.hpp>
#include <ferry/detail/growing_buffer.hpp>
#include <ferry/payload.hpp>
#include <ferry/wire.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

ferry::bytes some_bytes(std::size_t size) { return ferry::bytes::own(std::vector<std::uint8_t>(size, 0x5a)); }

void per_chunk(benchmark::State& state, std::uint64_t chunks) {
    state.counters["chunks"] = static_cast<double>(chunks);
    state.counters["per_chunk"] = benchmark::Counter(
        static_cast<double>(chunks), benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

/// Where each chunk begins and ends. No data is touched.
template <class ChunkSize>
void BM_split(benchmark::State& state) {
    using cutter = ferry::chunk_cutter<ChunkSize::value>;
    const auto size = static_cast<std::uint64_t>(state.range(0));
    for (auto _ : state) {
        for (cutter chunks(size); !chunks.done();) benchmark::DoNotOptimize(chunks.next());
    }
    per_chunk(state, cutter::count(size));
}

/// The same, and each chunk's header.
template <class ChunkSize>
void BM_split_and_header(benchmark::State& state) {
    using cutter = ferry::chunk_cutter<ChunkSize::value>;
    const auto size = static_cast<std::uint64_t>(state.range(0));
    for (auto _ : state) {
        for (cutter chunks(size); !chunks.done();) {
            const ferry::wire::chunk_header header(chunks.next());
            benchmark::DoNotOptimize(header.data()[header.size() - 1]);
        }
    }
    per_chunk(state, cutter::count(size));
}

/// The same, and each chunk as the buffer that gRPC sends: a header, and a slice that borrows the payload.
template <class ChunkSize>
void BM_split_and_write(benchmark::State& state) {
    using cutter = ferry::chunk_cutter<ChunkSize::value>;
    const ferry::payload content(some_bytes(static_cast<std::size_t>(state.range(0))));
    grpc::ByteBuffer out;
    for (auto _ : state) {
        for (cutter chunks(content.size()); !chunks.done();) {
            const auto part = chunks.next();
            ferry::wire::write_chunk(out, part, content, part.offset);
            benchmark::DoNotOptimize(out);
        }
    }
    per_chunk(state, cutter::count(content.size()));
}

/// What gRPC itself takes to make a buffer of two slices of which one borrows: the opponent of the one above.
template <class ChunkSize>
void BM_two_slices(benchmark::State& state) {
    using cutter = ferry::chunk_cutter<ChunkSize::value>;
    std::vector<std::uint8_t> content(static_cast<std::size_t>(state.range(0)));
    const auto count = cutter::count(content.size());
    grpc::ByteBuffer out;
    for (auto _ : state) {
        for (std::uint64_t i = 0; i < count; ++i) {
            const grpc::Slice slices[] = {grpc::Slice("0123456789", 10), grpc::Slice(content.data(), 1, [](void*) {})};
            grpc::ByteBuffer made(slices, 2);
            out.Swap(&made);
            benchmark::DoNotOptimize(out);
        }
    }
    per_chunk(state, count);
}

/// Chunks put together into one run of fresh memory.
template <class ChunkSize>
void BM_assemble(benchmark::State& state) {
    using cutter = ferry::chunk_cutter<ChunkSize::value>;
    const auto content = some_bytes(static_cast<std::size_t>(state.range(0)));
    ferry::chunk_assembler to;
    for (auto _ : state) {
        for (cutter chunks(content.size()); !chunks.done();) {
            const auto part = chunks.next();
            to.begin(part.length, part.size);
            to.write({content.data() + part.offset, part.length});
            to.commit(part.size, part.iteration);
        }
        benchmark::DoNotOptimize(to.take());
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}

/// memcpy of the same bytes, in pieces of what comes at a time, into memory that is taken in the same way. With memory
/// of its own it would be a matter of luck how much of it lies in huge pages, which is worth more than all that is
/// measured here. "In the same way" is fresh from 64 MiB on: up to 1 MiB malloc gives both of them the same memory
/// again, and the cache has it.
void copy_in_pieces(benchmark::State& state, std::size_t most) {
    const auto content = some_bytes(static_cast<std::size_t>(state.range(0)));
    for (auto _ : state) {
        ferry::detail::growing_buffer to;
        to.ensure(content.size(), content.size());
        auto* at = to.data();
        benchmark::DoNotOptimize(at);
        for (std::size_t from = 0; from < content.size(); from += most) {
            std::memcpy(at + from, content.data() + from, std::min(most, content.size() - from));
            benchmark::ClobberMemory();  // each piece by itself
        }
        benchmark::DoNotOptimize(to.release(content.size()));
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}

/// In pieces as large as a chunk's content: the opponent of the one above.
template <class ChunkSize>
void BM_memcpy_fresh(benchmark::State& state) {
    copy_in_pieces(state, ChunkSize::value);
}

/// All at once, which nobody can whose bytes come in chunks.
void BM_memcpy_whole(benchmark::State& state) { copy_in_pieces(state, static_cast<std::size_t>(state.range(0))); }

using small_chunks = ferry::max_message_bytes_length<4096>;
using usual_chunks = ferry::max_message_bytes_length<>;
using large_chunks = ferry::max_message_bytes_length<16'000'000>;

constexpr std::int64_t kib = 1024, mib = 1024 * kib;

BENCHMARK(BM_split<small_chunks>)->Arg(kib)->Arg(64 * mib);
BENCHMARK(BM_split<usual_chunks>)->Arg(kib)->Arg(64 * mib);
BENCHMARK(BM_split_and_header<small_chunks>)->Arg(kib)->Arg(64 * mib);
BENCHMARK(BM_split_and_header<usual_chunks>)->Arg(kib)->Arg(64 * mib)->Arg(1024 * mib);
BENCHMARK(BM_split_and_header<large_chunks>)->Arg(64 * mib)->Arg(1024 * mib);
BENCHMARK(BM_split_and_write<small_chunks>)->Arg(kib)->Arg(64 * mib);
BENCHMARK(BM_two_slices<small_chunks>)->Arg(kib)->Arg(64 * mib);
BENCHMARK(BM_split_and_write<usual_chunks>)->Arg(kib)->Arg(64 * mib)->Arg(1024 * mib);
BENCHMARK(BM_two_slices<usual_chunks>)->Arg(kib)->Arg(64 * mib)->Arg(1024 * mib);
BENCHMARK(BM_split_and_write<large_chunks>)->Arg(64 * mib)->Arg(1024 * mib);
BENCHMARK(BM_two_slices<large_chunks>)->Arg(64 * mib)->Arg(1024 * mib);
BENCHMARK(BM_assemble<small_chunks>)->Arg(kib)->Arg(mib)->Arg(64 * mib);
BENCHMARK(BM_assemble<usual_chunks>)->Arg(kib)->Arg(mib)->Arg(64 * mib)->Arg(1024 * mib);
BENCHMARK(BM_assemble<large_chunks>)->Arg(64 * mib)->Arg(1024 * mib);
BENCHMARK(BM_memcpy_fresh<small_chunks>)->Arg(kib)->Arg(mib)->Arg(64 * mib);
BENCHMARK(BM_memcpy_fresh<usual_chunks>)->Arg(kib)->Arg(mib)->Arg(64 * mib)->Arg(1024 * mib);
BENCHMARK(BM_memcpy_fresh<large_chunks>)->Arg(64 * mib)->Arg(1024 * mib);
BENCHMARK(BM_memcpy_whole)->Arg(kib)->Arg(mib)->Arg(64 * mib)->Arg(1024 * mib);

}  // namespace

BENCHMARK_MAIN();
