#include <ferry/conformance/agent_store.hpp>
#include <ferry/conformance/durable_agent_store.hpp>
#include <ferry/conformance/shared_agent_store.hpp>

#include "hub_store.hpp"

#include <memory>
#include <string>

namespace ferry::conformance {

template <>
struct model_of<ferry_test::hub_store> {
    std::shared_ptr<ferry_test::hub> shared = std::make_shared<ferry_test::hub>();

    ferry_test::hub_store make() const { return make("server"); }
    ferry_test::hub_store make(const std::string& server) const { return {shared, server}; }
    void forget(const std::string& server) const { shared->expire(server); }
};

INSTANTIATE_TYPED_TEST_SUITE_P(hub_conformance, agent_store_suite, ferry_test::hub_store);
INSTANTIATE_TYPED_TEST_SUITE_P(hub_conformance, durable_agent_store_suite, ferry_test::hub_store);
INSTANTIATE_TYPED_TEST_SUITE_P(hub_conformance, shared_agent_store_suite, ferry_test::hub_store);

}  // namespace ferry::conformance
