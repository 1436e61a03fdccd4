// expect: the identity needs `static constexpr bool needs_certificates`
#include <ferry/grpc_server.hpp>

#include <string>

struct own_identity {
    using policy_category = ferry::identity_tag;
    bool admits(const std::string&, const ferry::peer_info&) const { return true; }
};

ferry::basic_grpc_server<own_identity> server({});
