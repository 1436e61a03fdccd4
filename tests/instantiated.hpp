// The server and the client with ferry's defaults are compiled once for all tests, in instantiated.cpp.
#pragma once

#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>

extern template class ferry::detail::grpc_server_core<ferry::msgpack_serializer<>, ferry::memory_agent_store,
                                                      ferry::bounded_retry, ferry::max_message_bytes_length<>,
                                                      ferry::open_identity>;
extern template class ferry::detail::grpc_server_impl<ferry::msgpack_serializer<>, ferry::memory_agent_store,
                                                      ferry::bounded_retry, ferry::max_message_bytes_length<>,
                                                      ferry::open_identity>;
extern template class ferry::detail::grpc_client_link<ferry::msgpack_serializer<>, ferry::bounded_retry,
                                                      ferry::max_message_bytes_length<>>;
extern template class ferry::detail::grpc_client_impl<ferry::msgpack_serializer<>, ferry::bounded_retry,
                                                      ferry::max_message_bytes_length<>>;
