// What crosses over between Python and C++, described by its types. Python compares that with its own
// records and signatures when it loads the library (tunelab/kernels/abi.py). It is data alone, no code: a unit
// that grows is inlined otherwise.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "vec.h"

namespace {

// A record (its size), a field of one (letter and offset), or a function (its arguments' letters).
struct Row {
  const char *of, *name, *letters;  // `of`: "record", "function", or the record of a field
  long number;
  void* place;
};

template <class T, class = void>
constexpr bool is_record = false;
template <class T>
constexpr bool is_record<T, std::void_t<decltype(T::record_name)>> = true;

// The letter of a type: pointer, record, long, int, uint32 or float. No other crosses over.
template <class T>
constexpr const char* letter() {
  using To = std::remove_cv_t<std::remove_pointer_t<T>>;
  static_assert(!std::is_class_v<To> || std::is_same_v<To, bf16> || is_record<To>, "name its FIELDS");
  if constexpr (std::is_pointer_v<T>) return "p";
  else if constexpr (is_record<T>) return "s";
  else if constexpr (std::is_same_v<T, long>) return "l";
  else if constexpr (std::is_same_v<T, int>) return "i";
  else if constexpr (std::is_same_v<T, uint32_t>) return "u";
  else {
    static_assert(std::is_same_v<T, float>, "this type has no letter");
    return "f";
  }
}

template <class... A>
constexpr char all_letters[] = {*letter<A>()..., 0};
template <class... A>
constexpr const char* letters_of(void (*)(A...)) {
  return all_letters<A...>;
}

}  // namespace

// A row of a function: FUNCTION(name, kind of its tensors, function).
#define FUNCTION(NAME, KIND, ...) \
  Row{"function", #NAME "_" #KIND, letters_of(__VA_ARGS__), 0, reinterpret_cast<void*>(__VA_ARGS__)}

// M(first) M(second) ..., for up to 64 arguments: what stands before PARENS waits for the next pass.
#define PARENS ()
#define PASS(...) PASS_16(PASS_16(PASS_16(PASS_16(__VA_ARGS__))))
#define PASS_16(...) PASS_4(PASS_4(PASS_4(PASS_4(__VA_ARGS__))))
#define PASS_4(...) PASS_1(PASS_1(PASS_1(PASS_1(__VA_ARGS__))))
#define PASS_1(...) __VA_ARGS__
#define FOR_EACH(M, ...) PASS(FOR_FIRST(M, __VA_ARGS__))
#define FOR_FIRST(M, FIRST, ...) M(FIRST) __VA_OPT__(FOR_REST PARENS(M, __VA_ARGS__))
#define FOR_REST() FOR_FIRST

// Stands at the end of a record, a struct that Python fills in: its name, then its fields in order. A
// field that is left out does not compile.
#define FIELDS(RECORD, ...)                                               \
  static constexpr const char* record_name = #RECORD;                     \
  template <class S>                                                      \
  static constexpr auto described() {                                     \
    const S some{};                                                       \
    const auto& [__VA_ARGS__] = some;                                     \
    return std::array{Row{"record", record_name, "", sizeof(S), nullptr}, \
                      FOR_EACH(FIELD, __VA_ARGS__) Row{}};                \
  }
#define FIELD(NAME) Row{record_name, #NAME, letter<decltype(S::NAME)>(), offsetof(S, NAME), nullptr},

namespace {

// The rows of a record, behind which one is empty.
template <class S>
constexpr auto record_rows = S::template described<S>();

}  // namespace
