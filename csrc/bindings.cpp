// Host functions only: what was built, and which instruction set runs. The operators register themselves in their own
// files (TORCH_LIBRARY_IMPL) when this module is loaded.

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "cpu/isa.h"

#ifndef IP2P_CUDA_ARCH
#define IP2P_CUDA_ARCH ""
#endif

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["isa_compiled"] = ip2p::compiled_isa_names();
  info["isa"] = ip2p::name_of(ip2p::isa_in_use());
  info["cuda_arch"] = IP2P_CUDA_ARCH;
  return info;
}

void set_isa(const std::string& name) {
  if (!ip2p::set_isa(name.c_str()))
    throw std::invalid_argument("set_isa: " + name + " is not one of " + ip2p::compiled_isa_names() +
                                " or this machine has no more than " + ip2p::name_of(ip2p::best_isa()));
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Host functions of the compiled extension; its operators are under torch.ops.ip2p_fast.";
  m.def("build_info", &build_info,
        "{compiler, isa_compiled: space-separated, isa: in use, cuda_arch: space-separated, empty without CUDA}");
  m.def("set_isa", &set_isa, py::arg("name"), "Run the CPU kernels on a narrower instruction set (for tests).");
}
