/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS

   One step of a block as machine code of PyTorch's AOTInductor, by its C interface.
------------------------------------------------------------------------- */

#ifndef LMP_NBODY_CODE_H
#define LMP_NBODY_CODE_H

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace LAMMPS_NS {

// tensors that are handed to a step. They do not own their numbers

class NBodyArguments {
 public:
  explicit NBodyArguments(bool is_double);
  ~NBodyArguments();
  NBodyArguments(const NBodyArguments &) = delete;
  NBodyArguments &operator=(const NBodyArguments &) = delete;

  void real(const void *data, const std::vector<int64_t> &sizes);    // of the network's dtype
  void index(const int64_t *data, std::initializer_list<int64_t> sizes);
  void flag(const uint8_t *data, std::initializer_list<int64_t> sizes);

 private:
  friend class NBodyCode;
  const int32_t real_type;
  std::vector<AtenTensorHandle> handles;
  void add(const void *data, const int64_t *sizes, size_t dim, int32_t type);
};

// a tensor that a step gave; any strides

class NBodyResult {
 public:
  explicit NBodyResult(AtenTensorHandle handle = nullptr);
  ~NBodyResult();
  NBodyResult(NBodyResult &&other) noexcept;
  NBodyResult(const NBodyResult &) = delete;
  NBodyResult &operator=(const NBodyResult &) = delete;

  const char *data;
  const int64_t *strides;

 private:
  AtenTensorHandle handle;
};

class NBodyCode {
 public:
  // from the bytes of a shared library. Throws std::runtime_error

  explicit NBodyCode(const std::string &library);
  ~NBodyCode();
  NBodyCode(const NBodyCode &) = delete;
  NBodyCode &operator=(const NBodyCode &) = delete;

  // the step. It takes the arguments away. Throws std::runtime_error

  std::vector<NBodyResult> operator()(NBodyArguments &arguments) const;

 private:
  using Handle = void *;
  using Create = int32_t (*)(Handle *, size_t, const char *, const char *);
  using Count = int32_t (*)(Handle, size_t *);
  using Run = int32_t (*)(Handle, AtenTensorHandle *, size_t, AtenTensorHandle *, size_t, void *,
                          void *);
  using Delete = int32_t (*)(Handle);

  void *library;
  Handle container;
  Run run;
  size_t ninputs, noutputs;

  void *function(const char *name) const;
};

}    // namespace LAMMPS_NS

#endif
