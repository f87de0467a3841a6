// Edits a picture by an instruction: one call of a bundle's edit.onnx, on OpenVINO, without Python.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <openvino/openvino.hpp>
#include <random>
#include <sstream>

#include "bad_input.h"
#include "picture.h"
#include "tokenizer.h"

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const char* const kUsage =
    "usage: edit BUNDLE IN.png \"make it night\" OUT.png\n"
    "  --steps N             4, 8, 20 or 50, as the bundle's tables.json has\n"
    "  --sampler NAME        euler_a, euler, ddim, dpmpp_2m or lcm\n"
    "  --text-guidance X     higher follows the instruction more\n"
    "  --image-guidance X    higher keeps the picture more\n"
    "  --negative TEXT       what to avoid\n"
    "  --seed N              without it one is drawn\n"
    "  --noise FILE          float32 [steps + 1, C, h, w] in place of the seed's\n"
    "What is not given is the model's own. `edit BUNDLE --ids TEXT` prints the text's token ids.";
const char* const kOptions[] = {"--steps",    "--sampler", "--text-guidance", "--image-guidance",
                                "--negative", "--seed",    "--noise"};
constexpr int kSchema = 1;  // of bundle.json; a newer one may mean something else
constexpr double kMaxGuidance = 1000.0;
constexpr double kMaxSeed = 4294967295.0;

struct Arguments {
  std::string bundle, input, instruction, output;
  std::map<std::string, std::string> options;

  std::string option(const std::string& name, const std::string& otherwise) const {
    const auto given = options.find(name);
    return given == options.end() ? otherwise : given->second;
  }
};

/// What edit.onnx reads of one edit.
struct Edit {
  Picture picture;
  std::vector<int64_t> ids;  // [2, 77]: the null or negative text, the instruction
  float text_guidance, image_guidance, start_scale;
  std::vector<float> timesteps;     // [S]
  std::vector<float> coefficients;  // [S, 7]
  std::vector<float> noise;         // [S + 1, C, h, w], unit normal
  ov::Shape noise_shape;            // with the batch's axis
};

void make_edit(const std::vector<std::string>& words);
Arguments parse(const std::vector<std::string>& words);
Edit prepare(const Arguments& arguments);
Picture run(const fs::path& bundle, Edit& edit);
const json& find_table(const json& tables, const std::string& sampler, const std::string& steps);
std::vector<float> make_noise(const Arguments& arguments, size_t count);
Tokenizer read_tokenizer(const fs::path& bundle);
json read_json(const fs::path& path);
double number(const std::string& name, const std::string& text, double low, double high, bool whole = false);
void require_writable(const fs::path& path);
std::string keys(const json& object);

}  // namespace

int main(int count, char** values) {
  try {
    make_edit({values + 1, values + count});
    return 0;
  } catch (const BadInput& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "failed: " << error.what() << "\n";
    return 1;
  }
}

namespace {

void make_edit(const std::vector<std::string>& words) {
  if (std::find(words.begin(), words.end(), "--help") != words.end()) {
    std::cout << kUsage << "\n";
  } else if (words.size() == 3 && words[1] == "--ids") {
    std::cout << json(read_tokenizer(words[0]).encode(words[2]).ids) << "\n";
  } else {
    const Arguments arguments = parse(words);
    Edit edit = prepare(arguments);
    write_png(arguments.output, run(arguments.bundle, edit));
  }
}

Arguments parse(const std::vector<std::string>& words) {
  Arguments arguments;
  std::vector<std::string> placed;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i].rfind("--", 0) != 0) {
      placed.push_back(words[i]);
      continue;
    }
    if (std::find(std::begin(kOptions), std::end(kOptions), words[i]) == std::end(kOptions)) {
      throw BadInput("unknown option " + words[i] + "; edit --help lists them");
    }
    if (i + 1 == words.size()) throw BadInput(words[i] + " needs a value");
    arguments.options[words[i]] = words[i + 1];
    ++i;
  }
  if (placed.size() != 4) {
    throw BadInput("BUNDLE, IN, INSTRUCTION and OUT are needed, " + std::to_string(placed.size()) +
                   " arguments are given; edit --help tells more");
  }
  arguments.bundle = placed[0], arguments.input = placed[1];
  arguments.instruction = placed[2], arguments.output = placed[3];
  if (arguments.instruction.find_first_not_of(" \t\n") == std::string::npos) {
    throw BadInput("the instruction is empty: say what to change");
  }
  require_writable(arguments.output);
  return arguments;
}

Edit prepare(const Arguments& arguments) {
  const fs::path bundle = arguments.bundle;
  const json manifest = read_json(bundle / "bundle.json"), tables = read_json(bundle / "tables.json");
  if (manifest.at("schema") > kSchema) {
    throw BadInput(bundle.string() + " is a bundle of schema " + manifest.at("schema").dump() +
                   ", and this program reads up to " + std::to_string(kSchema));
  }
  // the paper's settings, the model's own over them, those given over both
  json own = {{"sampler", "euler_a"}, {"steps", 20}, {"text_guidance", 7.5}, {"image_guidance", 1.5}};
  own.update(manifest.at("defaults"));
  const json& table = find_table(tables, arguments.option("--sampler", own.at("sampler")),
                                 arguments.option("--steps", own.at("steps").dump()));
  const auto guidance = [&](const char* option, const char* name) {
    return static_cast<float>(
        number(option, arguments.option(option, own.at(name).dump()), -kMaxGuidance, kMaxGuidance));
  };
  Edit edit;
  edit.text_guidance = guidance("--text-guidance", "text_guidance");
  edit.image_guidance = guidance("--image-guidance", "image_guidance");
  edit.start_scale = table.at("start_scale");
  edit.timesteps = table.at("timesteps").get<std::vector<float>>();
  for (const json& step : table.at("coefficients")) {
    for (const json& value : step) edit.coefficients.push_back(value);
  }

  edit.picture = read_png(arguments.input);
  const size_t width = edit.picture.width, height = edit.picture.height;
  const size_t multiple = manifest.at("size_multiple"), scale = manifest.at("vae_scale");
  if (width % multiple || height % multiple) {
    throw BadInput(arguments.input + " is " + std::to_string(width) + "x" + std::to_string(height) +
                   ": both sides must be multiples of " + std::to_string(multiple) + ", resize it first");
  }
  edit.noise_shape = {1, edit.timesteps.size() + 1, manifest.at("latent_channels"), height / scale, width / scale};
  edit.noise = make_noise(arguments, ov::shape_size(edit.noise_shape));

  const Tokenizer tokenizer = read_tokenizer(bundle);
  for (const std::string& text : {arguments.option("--negative", ""), arguments.instruction}) {
    const Encoded encoded = tokenizer.encode(text);
    edit.ids.insert(edit.ids.end(), encoded.ids.begin(), encoded.ids.end());
    if (encoded.cut) std::cerr << "warning: a text is longer than " << encoded.ids.size() << " tokens, cut\n";
  }
  return edit;
}

Picture run(const fs::path& bundle, Edit& edit) {
  ov::Core core;
  // some processors would otherwise compute in bfloat16
  const auto precision = ov::hint::inference_precision(ov::element::f32);
  ov::InferRequest request =
      core.compile_model((bundle / "edit.onnx").string(), "CPU", precision).create_infer_request();
  const auto set = [&](const char* name, ov::element::Type type, const ov::Shape& shape, void* data) {
    request.set_tensor(name, ov::Tensor(type, shape, data));
  };
  const size_t width = edit.picture.width, height = edit.picture.height, steps = edit.timesteps.size();
  set("pixels", ov::element::u8, {1, height, width, 3}, edit.picture.pixels.data());
  set("ids", ov::element::i64, {1, 2, edit.ids.size() / 2}, edit.ids.data());
  set("text_guidance", ov::element::f32, {1, 1}, &edit.text_guidance);
  set("image_guidance", ov::element::f32, {1, 1}, &edit.image_guidance);
  set("start_scale", ov::element::f32, {1, 1}, &edit.start_scale);
  set("timesteps", ov::element::f32, {1, steps}, edit.timesteps.data());
  set("coefficients", ov::element::f32, {1, steps, 7}, edit.coefficients.data());
  set("noise", ov::element::f32, edit.noise_shape, edit.noise.data());

  const auto start = std::chrono::steady_clock::now();
  request.infer();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::cout << width << "x" << height << ", " << steps << " steps in " << seconds.count() << " s\n";
  const ov::Tensor edited = request.get_tensor("edited");
  const uint8_t* pixels = edited.data<uint8_t>();
  return {width, height, {pixels, pixels + edited.get_size()}};
}

const json& find_table(const json& tables, const std::string& sampler, const std::string& steps) {
  if (!tables.contains(sampler)) {
    throw BadInput("unknown sampler '" + sampler + "': choose one of " + keys(tables));
  }
  const json& by_steps = tables.at(sampler);
  if (!by_steps.contains(steps)) {
    throw BadInput("steps is '" + steps + "': the bundle has tables of " + keys(by_steps) + " steps");
  }
  return by_steps.at(steps);
}

std::vector<float> make_noise(const Arguments& arguments, size_t count) {
  std::vector<float> noise(count);
  const std::string path = arguments.option("--noise", "");
  if (path.empty()) {
    std::random_device any;
    const std::string seed = arguments.option("--seed", std::to_string(any()));
    std::mt19937 random(static_cast<uint32_t>(number("--seed", seed, 0, kMaxSeed, true)));
    std::normal_distribution<float> normal;
    for (float& value : noise) value = normal(random);
    return noise;
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) throw BadInput("the noise " + path + " cannot be read");
  const size_t bytes = fs::file_size(path), needed = count * sizeof(float);
  if (bytes != needed) {
    throw BadInput(path + " has " + std::to_string(bytes) + " bytes, " + std::to_string(needed) + " are needed");
  }
  file.read(reinterpret_cast<char*>(noise.data()), static_cast<std::streamsize>(needed));
  if (!std::all_of(noise.begin(), noise.end(), [](float value) { return std::isfinite(value); })) {
    throw BadInput(path + " has values that are not finite");
  }
  return noise;
}

Tokenizer read_tokenizer(const fs::path& bundle) {
  return {read_json(bundle / "tokenizer/tokenizer.json"), read_json(bundle / "tokenizer/tokenizer_config.json")};
}

json read_json(const fs::path& path) {
  std::ifstream file(path);
  if (!file) throw BadInput(path.string() + " cannot be read: is it a bundle? `ip2p-fast export` makes one");
  try {
    return json::parse(file);
  } catch (const json::exception& error) {
    throw BadInput(path.string() + " is damaged: " + error.what());
  }
}

double number(const std::string& name, const std::string& text, double low, double high, bool whole) {
  size_t read = 0;
  double value = NAN;
  try {
    value = std::stod(text, &read);
  } catch (const std::logic_error&) {  // no number, or one out of range
  }
  if (read != text.size() || !(value >= low && value <= high) || (whole && value != std::floor(value))) {
    std::ostringstream message;
    message.precision(10);
    message << name << " is '" << text << "': a " << (whole ? "whole " : "") << "number from " << low << " to " << high
            << " is needed";
    throw BadInput(message.str());
  }
  return value;
}

void require_writable(const fs::path& path) {
  if (path.extension() != ".png") throw BadInput("cannot save a picture as " + path.string() + ": use .png");
  if (!fs::is_directory(fs::absolute(path).parent_path())) {
    throw BadInput("cannot write " + path.string() + ": its folder does not exist");
  }
}

/// By size, so that numbers stand in their order.
std::string keys(const json& object) {
  std::vector<std::string> names;
  for (const auto& item : object.items()) names.push_back(item.key());
  std::stable_sort(names.begin(), names.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
  std::string joined;
  for (const std::string& name : names) joined += (joined.empty() ? "" : ", ") + name;
  return joined;
}

}  // namespace
