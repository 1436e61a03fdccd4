// layer 4
// Who makes a call, as ferry's own value.
#pragma once

#include <ferry/identity.hpp>

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>
#include <grpcpp/server_context.h>

#include <string>
#include <string_view>

namespace ferry::detail {

inline constexpr const char* token_key = "authorization";
inline constexpr std::string_view token_prefix = "Bearer ";

inline peer_info peer_of(const grpc::CallbackServerContext& context) {
    peer_info peer;
    peer.address = context.peer();
    if (const auto tls = context.auth_context(); tls && tls->IsPeerAuthenticated()) {
        for (const auto* property : {GRPC_X509_CN_PROPERTY_NAME, GRPC_X509_SAN_PROPERTY_NAME}) {
            for (const auto& name : tls->FindPropertyValues(property)) {
                peer.certificate_names.emplace_back(name.data(), name.size());
            }
        }
    }
    const auto& sent = context.client_metadata();
    if (const auto found = sent.find(token_key); found != sent.end()) {
        const std::string_view value(found->second.data(), found->second.size());
        if (value.starts_with(token_prefix)) peer.token = value.substr(token_prefix.size());
    }
    return peer;
}

}  // namespace ferry::detail
