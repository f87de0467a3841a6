#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// 8-bit RGB.
struct Picture {
  size_t width, height;
  std::vector<uint8_t> pixels;  // [height, width, 3]
};

/// Reads a PNG, transparency on white. Throws BadInput.
Picture read_png(const std::string& path);

/// Writes a PNG. Throws BadInput.
void write_png(const std::string& path, const Picture& picture);
