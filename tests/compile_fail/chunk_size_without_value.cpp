// expect: the chunk size needs `static constexpr std::uint32_t value`
#include <ferry/grpc_server.hpp>

struct own_size {
    using policy_category = ferry::chunk_size_tag;
};

ferry::basic_grpc_server<own_size> server({});
