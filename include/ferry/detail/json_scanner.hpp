// layer 1
// Reads JSON text, as strictly as RFC 8259 has it, and tells a reader what comes (see json_reader.hpp). How deep a text may be
// nested is the reader's business: what is open takes a byte a level here.
#pragma once

#include <ferry/detail/json_reader.hpp>
#include <ferry/detail/json_writer.hpp>
#include <ferry/detail/utf8.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace ferry::detail {

template <class Reader>
class json_scanner {
public:
    json_scanner(std::string_view text, Reader& to)
        : begin_(text.data()), at_(begin_), end_(begin_ + text.size()), to_(to) {}

    /// What is wrong; nothing where all is well.
    std::string scan() {
        bool good = value();
        while (good && !open_.empty()) good = next();
        skip_blanks();
        if (good && at_ != end_) expected("the end");
        if (!good && problem_.empty()) return std::string(json_refused_text);
        return std::move(problem_);
    }

private:
    bool value() {
        switch (const char c = peek()) {
            case '{': return open('}') && to_.begin_map(0);
            case '[': return open(']') && to_.begin_array(0);
            case '"': return text() && to_.text(text_);
            case 't': return word("true") && to_.boolean(true);
            case 'f': return word("false") && to_.boolean(false);
            case 'n': return word("null") && to_.null();
            default: return c == '-' || is_digit(c) ? number() : expected("a value");
        }
    }

    /// An item or member of the innermost array or map, or its end.
    bool next() {
        const char closing = open_.back();
        const bool map = closing == '}';
        skip_blanks();
        if (take(closing)) {
            open_.pop_back();
            first_ = false;
            return map ? to_.end_map() : to_.end_array();
        }
        if (!std::exchange(first_, false) && !take(',')) return expected(map ? "',' or '}'" : "',' or ']'");
        return (!map || key()) && value();
    }
    bool key() {
        if (peek() != '"') return expected("a key in quotes");
        if (!text() || !to_.key(text_)) return false;
        skip_blanks();
        return take(':') || expected("':'");
    }
    bool open(char closing) {
        ++at_;
        open_.push_back(closing);
        return first_ = true;
    }

    void skip_blanks() {
        while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
    }
    /// 0 at the end, and for a byte of 0, which begins nothing.
    char here() const { return at_ != end_ ? *at_ : '\0'; }
    char peek() {
        skip_blanks();
        return here();
    }
    bool take(char wanted) {
        if (here() != wanted) return false;
        ++at_;
        return true;
    }
    bool word(std::string_view all) {
        if (!std::string_view(at_, end_).starts_with(all)) return expected("a value");
        at_ += all.size();
        return true;
    }

    bool number() {
        const char* const from = at_;
        const bool negative = take('-');
        if (!take('0') && !digits()) return false;
        const char* const whole = at_;
        if (take('.') && !digits()) return false;
        if (take('e') || take('E')) {
            if (!take('+')) take('-');
            if (!digits()) return false;
        }
        const std::string_view all(from, at_);
        if (at_ != whole) {
            double v = 0;
            if (converted(all, v)) return to_.floating(v);
            if (is_large(all)) return fail("the number " + utf8_text(all, quoted_bytes) + " is beyond float64", from);
            return to_.floating(negative ? -0.0 : 0.0);
        }
        std::int64_t below = 0;
        std::uint64_t above = 0;
        if (negative && converted(all, below)) return below < 0 ? to_.integer(below) : to_.unsigned_integer(0);
        if (!negative && converted(all, above)) return to_.unsigned_integer(above);
        return fail("the integer " + std::string(all) + " is beyond 64 bits", from);
    }
    static bool is_digit(char c) { return c >= '0' && c <= '9'; }
    bool digits() {
        const char* const from = at_;
        while (is_digit(here())) ++at_;
        return at_ != from || expected("a digit");
    }
    template <class Number>
    static bool converted(std::string_view digits, Number& to) {
        return std::from_chars(digits.data(), digits.data() + digits.size(), to).ec == std::errc();
    }
    /// Of a number that is too large or too small for a float64: whether it's the former.
    static bool is_large(std::string_view all) {
        const auto e = std::min(all.find_first_of("eE"), all.size());
        const auto power = all.substr(e).find_first_of("-0123456789");
        std::int64_t exponent = 0;
        if (e != all.size() && !converted(all.substr(e + power), exponent)) return all[e + power] != '-';
        const auto zeros = all.find_first_of("123456789") - std::min(all.find('.'), e);  // below 0 for none
        return exponent > static_cast<std::int64_t>(zeros);
    }

    /// Reads a text from its first quote on, into `text_`, which refers to the input where that has it as it is.
    bool text() {
        const char* const quote = at_;
        const char* from = ++at_;
        unescaped_.clear();
        while (true) {
            while (at_ != end_ && is_plain_json[byte()]) ++at_;
            if (at_ == end_) return fail("a text has no end", quote);
            if (*at_ == '"') break;
            if (*at_ == '\\') {
                unescaped_.append(from, at_);
                if (!escape()) return false;
                from = at_;
            } else {
                const auto length = utf8_sequence({at_, end_});
                if (length == 0)
                    return fail(byte() < 0x20 ? "a control character must be escaped in a text" : "a text is not UTF-8",
                                at_);
                at_ += length;
            }
        }
        text_ = unescaped_.empty() ? std::string_view(from, at_) : unescaped_.append(from, at_);
        ++at_;
        return true;
    }
    bool escape() {
        static constexpr std::string_view letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
        const char* const from = at_++;
        if (const auto which = letters.find(here()); which != letters.npos) {
            ++at_;
            unescaped_ += meant[which];
            return true;
        }
        std::uint32_t code = 0, low = 0;
        if (!take('u')) return fail("no such escape", from);
        if (!code_unit(code)) return fail("\\u needs 4 hexadecimal digits", from);
        if (code >= 0xd800 && code <= 0xdfff) {
            const bool pair =
                code < 0xdc00 && take('\\') && take('u') && code_unit(low) && low >= 0xdc00 && low <= 0xdfff;
            if (!pair) return fail("half of a surrogate pair", from);
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        append_utf8(unescaped_, code);
        return true;
    }
    bool code_unit(std::uint32_t& out) {
        if (end_ - at_ < 4) return false;
        const auto parsed = std::from_chars(at_, at_ + 4, out, 16).ptr;
        at_ += 4;
        return parsed == at_;
    }
    std::uint8_t byte() const { return static_cast<std::uint8_t>(*at_); }

    bool expected(std::string_view what) {
        const bool printed = at_ != end_ && byte() > ' ' && byte() < 0x7f;
        const std::string found = at_ == end_ ? "the end"
                                  : printed   ? "'" + std::string(1, *at_) + "'"
                                              : "a byte of " + std::to_string(byte());
        return fail("expected " + std::string(what) + ", found " + found, at_);
    }
    bool fail(const std::string& why, const char* where) {
        const std::string_view before(begin_, where);
        const auto line = std::count(before.begin(), before.end(), '\n') + 1;
        const auto column = before.size() - (before.rfind('\n') + 1) + 1;  // where there is none, that is 0
        problem_ = "line " + std::to_string(line) + ", column " + std::to_string(column) + ": " + why;
        return false;
    }

    const char* const begin_;
    const char* at_;
    const char* const end_;
    Reader& to_;
    std::string open_;    // the brackets that are to come
    bool first_ = false;  // nothing is in the innermost yet
    std::string_view text_;
    std::string unescaped_;
    std::string problem_;
};

}  // namespace ferry::detail
