#include "tokenizer.h"

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/regex.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <array>
#include <memory>

#include "bad_input.h"

namespace {

using icu::UnicodeString;
using nlohmann::json;

// ICU's own \s lacks a few of Unicode's white spaces.
const char* const kWhite = "\\p{White_Space}";
// What byte-level BPE splits words by once more (Radford et al. 2019).
const char* const kByteLevelWords =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+|\\p{White_Space}+";

void require(UErrorCode status) {
  if (U_FAILURE(status)) throw std::runtime_error(std::string("ICU: ") + u_errorName(status));
}

std::unique_ptr<icu::RegexMatcher> matcher(const UnicodeString& pattern, const UnicodeString& text) {
  UErrorCode status = U_ZERO_ERROR;
  auto found = std::make_unique<icu::RegexMatcher>(pattern, text, 0, status);
  require(status);
  return found;
}

std::vector<UnicodeString> matches(const std::string& pattern, const UnicodeString& text) {
  std::vector<UnicodeString> found;
  const auto regex = matcher(UnicodeString::fromUTF8(pattern), text);
  for (UErrorCode status = U_ZERO_ERROR; regex->find(status);) {
    found.push_back(regex->group(status));
    require(status);
  }
  return found;
}

/// NFC, each run of white space one space, lower case.
std::string normalize(const std::string& text) {
  UErrorCode status = U_ZERO_ERROR;
  const UnicodeString composed =
      icu::Normalizer2::getNFCInstance(status)->normalize(UnicodeString::fromUTF8(text), status);
  require(status);
  const UnicodeString spaced = matcher(UnicodeString(kWhite) + "+", composed)->replaceAll(" ", status);
  require(status);
  UnicodeString lower;
  for (int32_t i = 0; i < spaced.length(); i = spaced.moveIndex32(i, 1)) {
    // one by one: in a whole word ICU would write a last sigma differently, and the model was trained without that rule
    lower += UnicodeString(spaced.char32At(i)).toLower(icu::Locale::getRoot());
  }
  std::string bytes;
  return lower.toUTF8String(bytes);
}

/// The printable character that stands for each byte in the vocabulary: itself, or one from 256 on.
std::array<std::string, 256> byte_characters() {
  std::array<std::string, 256> characters;
  UChar32 next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    UnicodeString(printable ? byte : next++).toUTF8String(characters[byte]);
  }
  return characters;
}

/// Calls `between` with the text between added tokens and `token` with their ids, in order.
template <typename Between, typename Token>
void split(const std::string& text, const std::map<std::string, int64_t>& tokens, Between between, Token token) {
  for (size_t at = 0; at < text.size();) {
    size_t first = std::string::npos, size = 0;
    int64_t id = 0;
    for (const auto& [content, its_id] : tokens) {
      const size_t found = text.find(content, at);
      if (found < first || (found == first && found != std::string::npos && content.size() > size)) {
        first = found, size = content.size(), id = its_id;
      }
    }
    if (first != at) between(text.substr(at, first - at));
    if (first == std::string::npos) return;
    token(id);
    at = first + size;
  }
}

std::string content(const json& token) { return token.is_string() ? token : token.at("content"); }

}  // namespace

Tokenizer::Tokenizer(const json& tokenizer, const json& config) {
  const json& model = tokenizer.at("model");
  vocabulary_ = model.at("vocab").get<decltype(vocabulary_)>();
  for (const json& pair : model.at("merges")) {
    const std::string merge =
        pair.is_string() ? pair.get<std::string>() : pair[0].get<std::string>() + " " + pair[1].get<std::string>();
    ranks_.emplace(merge, ranks_.size());
  }
  for (const json& token : tokenizer.at("added_tokens")) {
    for (const char* rule : {"lstrip", "rstrip", "single_word"}) {
      if (token.value(rule, false))
        throw BadInput("the added token " + content(token) + " has a rule not known here: " + rule);
    }
    vocabulary_[content(token)] = token.at("id");
    (token.value("normalized", false) ? normalized_ : raw_)[content(token)] = token.at("id");
  }
  words_ = tokenizer.at("/pre_tokenizer/pretokenizers/0/pattern/Regex"_json_pointer);
  for (size_t at; (at = words_.find("\\s")) != std::string::npos;) words_.replace(at, 2, kWhite);
  start_ = vocabulary_.at(content(config.at("bos_token")));
  end_ = vocabulary_.at(content(config.at("eos_token")));
  pad_ = vocabulary_.at(content(config.at("pad_token")));
  unknown_ = vocabulary_.at(content(config.at("unk_token")));
  length_ = config.at("model_max_length");
}

Encoded Tokenizer::encode(const std::string& text) const {
  Ids ids{start_};
  const auto add = [&](int64_t id) { ids.push_back(id); };
  split(
      text, raw_,
      [&](const std::string& part) {
        split(normalize(part), normalized_, [&](const std::string& words) { add_text(words, ids); }, add);
      },
      add);
  const bool cut = ids.size() > length_ - 1;
  ids.resize(std::min(ids.size(), length_ - 1));
  ids.push_back(end_);
  ids.resize(length_, pad_);
  return {ids, cut};
}

void Tokenizer::add_text(const std::string& text, Ids& ids) const {
  for (const UnicodeString& word : matches(words_, UnicodeString::fromUTF8(text))) {
    for (const UnicodeString& part : matches(kByteLevelWords, word)) {
      std::string bytes;
      add_word(part.toUTF8String(bytes), ids);
    }
  }
}

/// Merges the pair of lowest rank, the first of them, until none is left (Sennrich et al. 2016).
void Tokenizer::add_word(const std::string& word, Ids& ids) const {
  static const std::array<std::string, 256> characters = byte_characters();
  std::vector<std::string> symbols;
  for (const char byte : word) symbols.push_back(characters[static_cast<uint8_t>(byte)]);
  symbols.back() += "</w>";
  while (true) {
    size_t best = ranks_.size(), place = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto rank = ranks_.find(symbols[i] + " " + symbols[i + 1]);
      if (rank != ranks_.end() && rank->second < best) best = rank->second, place = i;
    }
    if (best == ranks_.size()) break;
    symbols[place] += symbols[place + 1];
    symbols.erase(symbols.begin() + place + 1);
  }
  for (const std::string& symbol : symbols) ids.push_back(id_of(symbol));
}

int64_t Tokenizer::id_of(const std::string& token) const {
  const auto found = vocabulary_.find(token);
  return found == vocabulary_.end() ? unknown_ : found->second;
}
