// expect: the chunk size needs `static constexpr std::uint32_t value`
#include <ferry/grpc_server.hpp>

struct own_size {
    using policy_category = ferry::chunk_size_tag;
    static inline unsigned value = 1000;
};

ferry::basic_grpc_server<own_size> server({});
