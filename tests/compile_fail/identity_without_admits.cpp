// expect: the identity needs `bool admits\(const std::string& node, const peer_info&\) const`
#include <ferry/grpc_server.hpp>

struct own_identity {
    using policy_category = ferry::identity_tag;
    static constexpr bool needs_certificates = false;
};

ferry::basic_grpc_server<own_identity> server({});
