// Runs the conformance suites over broken models: broken_models [MODEL]. Succeeds where each model fails in the test that
// it names, and the sound ones nowhere. With --each-test it runs nothing, and succeeds where each test has such a model.
#include "broken_models.hpp"

#include <gtest/gtest.h>

#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace {

std::string first_failure(const testing::TestResult& result) {
    for (int i = 0; i < result.total_part_count(); ++i) {
        if (result.GetTestPartResult(i).failed()) return result.GetTestPartResult(i).message();
    }
    return {};
}

std::string_view meant_test(const testing::TestSuite& suite) {
    const std::string_view name = suite.name();
    return name.substr(name.rfind('/') + 1);
}

/// The name without the model's.
std::string_view suite_itself(const testing::TestSuite& suite) {
    const std::string_view name = suite.name();
    const auto from = name.find('/') + 1;
    return name.substr(from, name.rfind('/') - from);
}

/// Says what came of one suite, which is called model/suite/test.
bool is_as_meant(const testing::TestSuite& suite) {
    const auto meant = meant_test(suite);
    bool as_meant = meant == ferry_test::nothing;
    std::string text, others;
    for (int i = 0; i < suite.total_test_count(); ++i) {
        const auto& test = *suite.GetTestInfo(i);
        if (!test.should_run() || test.result()->Passed()) continue;
        if (meant == ferry_test::nothing) as_meant = false;
        if (meant == ferry_test::nothing || meant == test.name()) text = first_failure(*test.result());
        if (meant == test.name()) {
            as_meant = true;
        } else {
            others += std::string(" ") + test.name();
        }
    }
    std::cout << (as_meant ? "as meant: " : "NOT AS MEANT: ") << suite.name() << "\n    " << text.substr(0, 600)
              << (others.empty() ? "" : "\n    and in:" + others) << std::endl;
    return as_meant;
}

int check_that_each_test_can_fail() {
    const auto& all = *testing::UnitTest::GetInstance();
    std::map<std::string, int> models;
    for (int i = 0; i < all.total_test_suite_count(); ++i) {
        const auto& suite = *all.GetTestSuite(i);
        const auto itself = std::string(suite_itself(suite)) + ".";
        for (int j = 0; j < suite.total_test_count(); ++j) {
            models[itself + suite.GetTestInfo(j)->name()] += suite.GetTestInfo(j)->name() == meant_test(suite) ? 1 : 0;
        }
    }
    bool each = !models.empty();
    for (const auto& [test, count] : models) {
        std::cout << test << ": " << count << " broken models\n";
        each = each && count > 0;
    }
    return each ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    if (argc > 1 && argv[1] == std::string_view("--each-test")) return check_that_each_test_can_fail();
    if (argc > 1) testing::GTEST_FLAG(filter) = std::string(argv[1]) + "/*";
    const auto& all = *testing::UnitTest::GetInstance();
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    const std::unique_ptr<testing::TestEventListener> quiet(listeners.Release(listeners.default_result_printer()));
    const bool failed = RUN_ALL_TESTS() != 0;
    int models = 0, right = 0, broken = 0;
    for (int i = 0; i < all.total_test_suite_count(); ++i) {
        const auto& suite = *all.GetTestSuite(i);
        if (!suite.should_run()) continue;
        ++models;
        broken += suite.Failed() ? 1 : 0;
        right += is_as_meant(suite) ? 1 : 0;
    }
    std::cout << right << " of " << models << " models as meant, " << broken << " of them broken\n";
    return models > 0 && right == models && failed == (broken > 0) ? 0 : 1;
}
