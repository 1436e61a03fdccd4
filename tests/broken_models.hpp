// Models that break one promise each, to show that the conformance suites notice. Each names the test that is meant to fail
// for it; a sound one names none. broken_models.cpp checks that this is so.
#pragma once

#include <string>

namespace ferry_test {

/// Puts the name of the test that is meant to fail into the suite's name.
struct meant_for {
    template <class Model>
    static std::string GetName(int) {
        return Model::fails_in;
    }
};

inline constexpr const char* nothing = "nothing";

}  // namespace ferry_test
