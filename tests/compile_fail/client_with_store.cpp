// expect: a client has no agent store
#include <ferry/agent_store/memory.hpp>
#include <ferry/grpc_client.hpp>

ferry::basic_grpc_client<ferry::memory_agent_store> client({}, [](auto) {});
