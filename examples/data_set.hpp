// Rows of features with a class each, read from a csv file, and how the main job splits them: every fifth row is held
// out, the others are dealt to the nodes in turn.
#pragma once

#include <cstddef>
#include <fstream>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace example {

struct data_set {
    std::size_t features = 0;
    std::vector<double> values;  ///< row after row
    std::vector<double> labels;  ///< 0 or 1, one a row

    std::size_t rows() const { return labels.size(); }
    std::span<const double> row(std::size_t i) const { return std::span(values).subspan(i * features, features); }
    std::span<double> row(std::size_t i) { return std::span(values).subspan(i * features, features); }
};

/// The first line is "rows,features,...". Then each line is a row: its features and its class. Throws
/// `std::runtime_error` where the file is not like that.
inline data_set read_csv(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::size_t rows = 0;
    char comma = 0;
    data_set all;
    const auto wrong = [&](const std::string& what) { return std::runtime_error(path + ": " + what); };

    if (!file) throw wrong("the file can't be read");
    std::getline(file, line);
    if (!(std::istringstream(line) >> rows >> comma >> all.features) || rows == 0 || all.features == 0)
        throw wrong("the first line must begin with the number of rows and of features");
    while (std::getline(file, line)) {
        std::istringstream in(line);
        double value = 0;
        for (std::size_t i = 0; i < all.features; ++i) {
            if (!(in >> value >> comma)) throw wrong("row " + std::to_string(all.rows() + 1) + " has too few numbers");
            all.values.push_back(value);
        }
        if (!(in >> value) || (value != 0 && value != 1))
            throw wrong("the class of row " + std::to_string(all.rows() + 1) + " must be 0 or 1");
        all.labels.push_back(value);
    }
    if (all.rows() != rows)
        throw wrong("it announces " + std::to_string(rows) + " rows and has " + std::to_string(all.rows()));
    return all;
}

/// Those rows whose index `wanted` accepts.
template <class Predicate>
data_set select_rows(const data_set& from, Predicate wanted) {
    data_set some;
    some.features = from.features;
    for (std::size_t i = 0; i < from.rows(); ++i) {
        if (!wanted(i)) continue;
        const auto row = from.row(i);
        some.values.insert(some.values.end(), row.begin(), row.end());
        some.labels.push_back(from.labels[i]);
    }
    return some;
}

inline data_set held_out_rows(const data_set& all) {
    return select_rows(all, [](std::size_t i) { return i % 5 == 0; });
}

inline data_set training_rows(const data_set& all) {
    return select_rows(all, [](std::size_t i) { return i % 5 != 0; });
}

/// Part `number` (from 1) of `shards`.
inline data_set shard_of(const data_set& training, std::size_t number, std::size_t shards) {
    return select_rows(training, [&](std::size_t i) { return i % shards == number - 1; });
}

}  // namespace example
