#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <vector>

/// ids: start, the text's tokens as far as they fit, end, padding; cut: whether some did not fit.
struct Encoded {
  std::vector<int64_t> ids;
  bool cut;
};

/// CLIP's byte-level BPE from a bundle's tokenizer.json: the ids of ip2p_fast/tokenizer.py.
class Tokenizer {
 public:
  /// From tokenizer.json and tokenizer_config.json. Throws what nlohmann::json does, or BadInput for added tokens with
  /// rules that are not known here.
  Tokenizer(const nlohmann::json& tokenizer, const nlohmann::json& config);

  Encoded encode(const std::string& text) const;

 private:
  using Ids = std::vector<int64_t>;

  void add_text(const std::string& text, Ids& ids) const;
  void add_word(const std::string& word, Ids& ids) const;
  int64_t id_of(const std::string& token) const;

  std::unordered_map<std::string, int64_t> vocabulary_;
  std::unordered_map<std::string, size_t> ranks_;  // "left right" -> its place among the merges
  std::map<std::string, int64_t> raw_;             // added tokens, found in the text as it is
  std::map<std::string, int64_t> normalized_;      // added tokens, found in the normalized text
  std::string words_;                              // the regular expression of a word
  int64_t start_, end_, pad_, unknown_;
  size_t length_;  // of the ids, 77 for the models there are
};
