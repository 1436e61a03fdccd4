#include "instantiated.hpp"

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
