// An agent store that several servers share: the journals are in a Redis, which all of them reach. A node may connect to any of
// them, and any of them sends to it.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/redis_options.hpp>
#include <ferry/policy.hpp>

namespace ferry {

class redis_agent_store {
public:
    using policy_category = agent_store_tag;

    explicit redis_agent_store(redis_options) {}
};

}  // namespace ferry
