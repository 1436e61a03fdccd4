// Logistic regression by plain gradient descent, and feature scaling whose sums can be added up over shards.
// The weights are one number a feature and, last, the bias.
#pragma once

#include "data_set.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace example {

using numbers = std::vector<double>;

/// What a shard tells of its features: enough for the mean and deviation over all shards, and no row.
struct feature_sums {
    std::size_t count = 0;
    numbers sum, sum_of_squares;

    explicit feature_sums(std::size_t features) : sum(features), sum_of_squares(features) {}

    explicit feature_sums(const data_set& data) : feature_sums(data.features) {
        count = data.rows();
        for (std::size_t i = 0; i < data.rows(); ++i) {
            const auto row = data.row(i);
            for (std::size_t k = 0; k < row.size(); ++k) {
                sum[k] += row[k];
                sum_of_squares[k] += row[k] * row[k];
            }
        }
    }
};

/// Makes each feature's mean 0 and its deviation 1.
struct feature_scaling {
    numbers mean, deviation;

    feature_scaling() = default;

    explicit feature_scaling(const feature_sums& sums) {
        const auto n = static_cast<double>(sums.count);
        for (std::size_t k = 0; k < sums.sum.size(); ++k) {
            mean.push_back(sums.sum[k] / n);
            const double variance = sums.sum_of_squares[k] / n - mean[k] * mean[k];
            deviation.push_back(variance > 0 ? std::sqrt(variance) : 1);
        }
    }

    data_set operator()(data_set data) const {
        for (std::size_t i = 0; i < data.rows(); ++i) {
            const auto row = data.row(i);
            for (std::size_t k = 0; k < row.size(); ++k) row[k] = (row[k] - mean.at(k)) / deviation.at(k);
        }
        return data;
    }
};

/// The log-odds of class 1.
inline double score(std::span<const double> row, const numbers& weights) {
    double sum = weights.back();
    for (std::size_t k = 0; k < row.size(); ++k) sum += row[k] * weights[k];
    return sum;
}

/// The mean cross-entropy.
inline double loss(const data_set& data, const numbers& weights) {
    double sum = 0;
    for (std::size_t i = 0; i < data.rows(); ++i) {
        const double s = score(data.row(i), weights);
        sum += std::max(s, 0.0) - s * data.labels[i] + std::log1p(std::exp(-std::abs(s)));
    }
    return sum / static_cast<double>(data.rows());
}

inline double accuracy(const data_set& data, const numbers& weights) {
    std::size_t right = 0;
    for (std::size_t i = 0; i < data.rows(); ++i) {
        if ((score(data.row(i), weights) > 0) == (data.labels[i] == 1)) ++right;
    }
    return static_cast<double>(right) / static_cast<double>(data.rows());
}

/// Goes `steps` steps down the gradient over all rows.
inline void descend(const data_set& data, numbers& weights, int steps, double rate) {
    numbers gradient(weights.size());
    for (int step = 0; step < steps; ++step) {
        std::fill(gradient.begin(), gradient.end(), 0.0);
        for (std::size_t i = 0; i < data.rows(); ++i) {
            const auto row = data.row(i);
            const double miss = 1 / (1 + std::exp(-score(row, weights))) - data.labels[i];
            for (std::size_t k = 0; k < row.size(); ++k) gradient[k] += miss * row[k];
            gradient.back() += miss;
        }
        for (std::size_t k = 0; k < weights.size(); ++k)
            weights[k] -= rate * gradient[k] / static_cast<double>(data.rows());
    }
}

}  // namespace example
