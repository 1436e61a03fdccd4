// An identity policy says which node a peer may speak for: poll as it, reply as it, send logs as it. What a payload claims
// to be is not believed by itself. The concept, its contract, and the models, which depend on nothing.
#pragma once

#include <ferry/policy.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace ferry {

/// What a server knows of whoever makes a call.
struct peer_info {
    std::string address;                           ///< as gRPC names it: "ipv4:10.0.0.7:53210"
    std::vector<std::string> certificate_names{};  ///< common and alternative names of its verified certificate, if any
    std::string token{};                           ///< that it sent along ("authorization: Bearer ..."), or empty
};

/// What the concepts ask for, one by one.
namespace provides {

template <class P>
concept admits = requires(const P& p, const std::string& node, const peer_info& peer) {
    { p.admits(node, peer) } -> std::same_as<bool>;
};

template <class P>
concept knows = requires(const P& p, const peer_info& peer) {
    { p.knows(peer) } -> std::same_as<bool>;
};

template <class P>
concept needs_certificates = requires {
    { P::needs_certificates } -> std::convertible_to<bool>;
};

}  // namespace provides

/// Decides whether a peer may speak for a node.
///
/// | expression              | meaning                                                                              |
/// |-------------------------|--------------------------------------------------------------------------------------|
/// | `p.admits(node, peer)`  | true where the peer may speak for the node of this id                                |
/// | `P::needs_certificates` | true where it looks at `certificate_names`: then `start` demands `client_roots`      |
///
/// One that has `p.knows(peer)` as well, false where the peer may speak for no node at all, is asked that before an upload is
/// read: which node a reply speaks for is known only once all of it was decoded. One that derives from a model here and admits
/// more needs a `knows` of its own, too.
///
/// `admits` is called once for each poll, each reply and each log or scalar, from several threads at once; it must not block
/// or throw. A peer that it turns away, or throws at, is answered PERMISSION_DENIED.
template <class P>
concept identity_policy = policy_of<P, identity_tag> && provides::admits<P> && provides::needs_certificates<P>;

/// Believes what everyone says, as the original does. The default.
struct open_identity {
    using policy_category = identity_tag;
    static constexpr bool needs_certificates = false;

    bool admits(const std::string&, const peer_info&) const noexcept { return true; }
};

/// A peer speaks for the nodes whose ids its certificate names.
struct certificate_identity {
    using policy_category = identity_tag;
    static constexpr bool needs_certificates = true;

    bool knows(const peer_info& peer) const noexcept { return !peer.certificate_names.empty(); }
    bool admits(const std::string& node, const peer_info& peer) const noexcept {
        return std::find(peer.certificate_names.begin(), peer.certificate_names.end(), node) !=
               peer.certificate_names.end();
    }
};

/// A peer speaks for the node whose token it has. Tokens are as secret as passwords: a client sends them over TLS only.
class token_identity {
public:
    using policy_category = identity_tag;
    static constexpr bool needs_certificates = false;

    /// From now on the node is admitted by this token alone. Nobody is admitted without one.
    token_identity& allow(const std::string& node, std::string token) {
        auto& kept = tokens_[node];
        if (const auto old = in_use_.find(kept); old != in_use_.end()) in_use_.erase(old);
        if (!token.empty()) in_use_.insert(token);
        kept = std::move(token);
        return *this;
    }

    /// Looks the token up by its hash.
    bool knows(const peer_info& peer) const noexcept { return in_use_.find(peer.token) != in_use_.end(); }

    bool admits(const std::string& node, const peer_info& peer) const noexcept {
        const auto found = tokens_.find(node);
        return found != tokens_.end() && !found->second.empty() && same(found->second, peer.token);
    }

private:
    /// Takes as long for a wrong token as for the right one of that length.
    static bool same(std::string_view a, std::string_view b) noexcept {
        if (a.size() != b.size()) return false;
        unsigned difference = 0;
        for (std::size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
        return difference == 0;
    }

    std::unordered_map<std::string, std::string> tokens_;  // by node
    std::unordered_multiset<std::string> in_use_;          // the same tokens
};

}  // namespace ferry
