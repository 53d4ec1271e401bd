/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS
------------------------------------------------------------------------- */

#include "nbody_code.h"

#include "nbody_torch.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <stdexcept>
#include <sys/mman.h>
#include <unistd.h>

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

static void check(int32_t status, const char *what)
{
  if (status != 0)
    throw std::runtime_error(std::string("PyTorch could not ") + what + ", as it says above");
}

/* ---------------------------------------------------------------------- */

NBodyArguments::NBodyArguments(bool is_double) :
    real_type(is_double ? NBodyTorch::get().dtype_float64() : NBodyTorch::get().dtype_float32())
{
}

NBodyArguments::~NBodyArguments()
{
  for (AtenTensorHandle handle : handles) NBodyTorch::get().delete_tensor(handle);
}

/* ---------------------------------------------------------------------- */

void NBodyArguments::real(const void *data, const std::vector<int64_t> &sizes)
{
  add(data, sizes.data(), sizes.size(), real_type);
}

void NBodyArguments::index(const int64_t *data, std::initializer_list<int64_t> sizes)
{
  add(data, sizes.begin(), sizes.size(), NBodyTorch::get().dtype_int64());
}

void NBodyArguments::flag(const uint8_t *data, std::initializer_list<int64_t> sizes)
{
  add(data, sizes.begin(), sizes.size(), NBodyTorch::get().dtype_bool());
}

/* ---------------------------------------------------------------------- */

void NBodyArguments::add(const void *data, const int64_t *sizes, size_t dim, int32_t type)
{
  std::vector<int64_t> strides(dim, 1);
  for (size_t axis = dim; axis-- > 1;) strides[axis - 1] = strides[axis] * sizes[axis];
  const NBodyTorch &torch = NBodyTorch::get();
  AtenTensorHandle handle;
  check(torch.create_tensor(const_cast<void *>(data), (int64_t) dim, sizes, strides.data(), 0,
                            type, torch.device_type_cpu(), 0, &handle, torch.layout_strided(),
                            nullptr, 0),
        "take a tensor");
  handles.push_back(handle);
}

/* ---------------------------------------------------------------------- */

NBodyResult::NBodyResult(AtenTensorHandle given) : data(nullptr), strides(nullptr), handle(given)
{
  if (!handle) return;
  void *pointer;
  int64_t *found;
  check(NBodyTorch::get().get_data(handle, &pointer), "give a tensor");
  check(NBodyTorch::get().get_strides(handle, &found), "give a tensor");
  data = (const char *) pointer;
  strides = found;
}

NBodyResult::NBodyResult(NBodyResult &&other) noexcept :
    data(other.data), strides(other.strides), handle(other.handle)
{
  other.handle = nullptr;
}

NBodyResult::~NBodyResult()
{
  if (handle) NBodyTorch::get().delete_tensor(handle);
}

/* ----------------------------------------------------------------------
   dlopen() wants a path. A file in memory needs no room on a disk, nobody else can change it,
   and clusters that forbid programs in /tmp allow it. Other systems than Linux have none
------------------------------------------------------------------------- */

static int open_file(std::string &path)
{
#if defined(__linux__)
  static int count = 0;    // dlopen() would give the library that it opened by the same path before
  const int file = memfd_create("nbody", MFD_CLOEXEC);
  path = "/proc/self/fd" + std::string(++count, '/') + std::to_string(file);
#else
  const char *folder = getenv("TMPDIR");
  path = std::string(folder ? folder : "/tmp") + "/nbodyXXXXXX";
  const int file = mkstemp(&path[0]);    // for this user alone
#endif
  if (file < 0) throw std::runtime_error(std::string("no file for it: ") + strerror(errno));
  return file;
}

/* ---------------------------------------------------------------------- */

static void *open_library(const std::string &bytes)
{
  std::string path;
  const int file = open_file(path);
  size_t place = 0;
  while (place < bytes.size()) {
    const ssize_t written = write(file, &bytes[place], bytes.size() - place);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    place += written;
  }
  const std::string fault = place < bytes.size() ? strerror(errno) : "";
  void *library = fault.empty() ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
  close(file);
#if !defined(__linux__)
  unlink(path.c_str());
#endif
  if (!fault.empty()) throw std::runtime_error("no room for it: " + fault);
  if (!library) throw std::runtime_error(dlerror());
  return library;
}

/* ---------------------------------------------------------------------- */

NBodyCode::NBodyCode(const std::string &bytes) : library(open_library(bytes)), container(nullptr)
{
  auto create = (Create) function("AOTInductorModelContainerCreateWithDevice");
  check(create(&container, 1, "cpu", nullptr), "set up the machine code");
  run = (Run) function("AOTInductorModelContainerRun");
  check(((Count) function("AOTInductorModelContainerGetNumInputs"))(container, &ninputs), "ask");
  check(((Count) function("AOTInductorModelContainerGetNumOutputs"))(container, &noutputs), "ask");
}

NBodyCode::~NBodyCode()
{
  if (container) ((Delete) function("AOTInductorModelContainerDelete"))(container);
  dlclose(library);
}

/* ---------------------------------------------------------------------- */

void *NBodyCode::function(const char *name) const
{
  void *found = dlsym(library, name);
  if (!found) throw std::runtime_error(std::string("it has no function ") + name);
  return found;
}

/* ---------------------------------------------------------------------- */

std::vector<NBodyResult> NBodyCode::operator()(NBodyArguments &arguments) const
{
  if (arguments.handles.size() != ninputs)
    throw std::runtime_error("the machine code takes other tensors than its model file gives");
  std::vector<AtenTensorHandle> given, found(noutputs, nullptr);
  given.swap(arguments.handles);    // the code deletes them
  check(run(container, given.data(), given.size(), found.data(), found.size(), nullptr, nullptr),
        "run the machine code");
  std::vector<NBodyResult> results;
  for (AtenTensorHandle handle : found) results.emplace_back(handle);
  return results;
}
