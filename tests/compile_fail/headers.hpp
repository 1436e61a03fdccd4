// What the cases include, compiled once a compiler for all of them.
#pragma once

#include <ferry/agent_store/memory.hpp>
#include <ferry/fields.hpp>
#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>
#include <ferry/serializer/json.hpp>
