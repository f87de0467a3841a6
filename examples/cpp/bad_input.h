#pragma once

#include <stdexcept>

/// Something the user gave that cannot be met; the message says what, the limit and the way out.
struct BadInput : std::runtime_error {
  using std::runtime_error::runtime_error;
};
