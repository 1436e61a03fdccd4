#include "instantiated.hpp"

#include <openssl/crypto.h>

namespace {

// gRPC has threads that come and go until the process has ended. OpenSSL would forget, as the process exits, where it keeps what
// it knows of each: whatever ended after that would be a leak to LeakSanitizer.
[[maybe_unused]] const int without_cleanup = ::OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr);

}  // namespace

template class ferry::detail::grpc_server_core<ferry::msgpack_serializer<>, ferry::memory_agent_store,
                                               ferry::bounded_retry, ferry::max_message_bytes_length<>,
                                               ferry::open_identity>;
template class ferry::detail::grpc_server_impl<ferry::msgpack_serializer<>, ferry::memory_agent_store,
                                               ferry::bounded_retry, ferry::max_message_bytes_length<>,
                                               ferry::open_identity>;
template class ferry::detail::grpc_client_link<ferry::msgpack_serializer<>, ferry::bounded_retry,
                                               ferry::max_message_bytes_length<>>;
template class ferry::detail::grpc_client_impl<ferry::msgpack_serializer<>, ferry::bounded_retry,
                                               ferry::max_message_bytes_length<>>;
