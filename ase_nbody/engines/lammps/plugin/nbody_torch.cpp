/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS
------------------------------------------------------------------------- */

#include "nbody_torch.h"

#include <dlfcn.h>
#include <stdexcept>
#include <string>

using namespace LAMMPS_NS;

/* ----------------------------------------------------------------------
   names that PyTorch calls are looked for in PyTorch before LAMMPS and its libraries. On macOS
   each library knows where its names come from
------------------------------------------------------------------------- */

static void *open_torch()
{
#if defined(RTLD_DEEPBIND)
  void *library = dlopen(NBODY_TORCH_LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
#else
  void *library = dlopen(NBODY_TORCH_LIBRARY, RTLD_NOW | RTLD_LOCAL);
#endif
  if (!library)
    throw std::runtime_error(std::string("PyTorch ") + NBODY_TORCH + " is not where it was when "
                             "\"nbody lammps build\" made this plugin: " + dlerror());
  return library;
}

/* ---------------------------------------------------------------------- */

template <typename FUNCTION> static void find(void *library, const char *name, FUNCTION &function)
{
  function = (FUNCTION) dlsym(library, name);
  if (!function)
    throw std::runtime_error(std::string("PyTorch's library ") + NBODY_TORCH_LIBRARY +
                             " has no function " + name +
                             " any more: say \"nbody lammps build --force\"");
}

/* ---------------------------------------------------------------------- */

NBodyTorch::NBodyTorch()
{
  void *const library = open_torch();

  // these three are C++, so their names are what the compiler makes of them

  find(library, "_ZN2at15get_num_threadsEv", get_num_threads);
  find(library, "_ZN2at15set_num_threadsEi", set_num_threads);
  find(library, "_ZN2at18get_cpu_capabilityB5cxx11Ev", get_cpu_capability);

  find(library, "aoti_torch_device_type_cpu", device_type_cpu);
  find(library, "aoti_torch_layout_strided", layout_strided);
  find(library, "aoti_torch_dtype_float32", dtype_float32);
  find(library, "aoti_torch_dtype_float64", dtype_float64);
  find(library, "aoti_torch_dtype_int64", dtype_int64);
  find(library, "aoti_torch_dtype_bool", dtype_bool);
  find(library, "aoti_torch_create_tensor_from_blob_v2", create_tensor);
  find(library, "aoti_torch_delete_tensor_object", delete_tensor);
  find(library, "aoti_torch_get_data_ptr", get_data);
  find(library, "aoti_torch_get_strides", get_strides);
}

/* ---------------------------------------------------------------------- */

const NBodyTorch &NBodyTorch::get()
{
  static const NBodyTorch torch;
  return torch;
}
