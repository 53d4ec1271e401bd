/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS

   The functions of PyTorch that the plugin calls. The plugin opens PyTorch itself, because the
   linker would let it call LAMMPS's BLAS: LAMMPS brings a dgemm_() of its own, which takes
   several times as long as PyTorch's.
------------------------------------------------------------------------- */

#ifndef LMP_NBODY_TORCH_H
#define LMP_NBODY_TORCH_H

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

namespace LAMMPS_NS {

struct NBodyTorch {
  // opens PyTorch at the first call. Throws std::runtime_error

  static const NBodyTorch &get();

  decltype(&at::get_num_threads) get_num_threads;
  decltype(&at::set_num_threads) set_num_threads;
  decltype(&at::get_cpu_capability) get_cpu_capability;

  decltype(&aoti_torch_device_type_cpu) device_type_cpu;
  decltype(&aoti_torch_layout_strided) layout_strided;
  decltype(&aoti_torch_dtype_float32) dtype_float32;
  decltype(&aoti_torch_dtype_float64) dtype_float64;
  decltype(&aoti_torch_dtype_int64) dtype_int64;
  decltype(&aoti_torch_dtype_bool) dtype_bool;
  decltype(&aoti_torch_create_tensor_from_blob_v2) create_tensor;
  decltype(&aoti_torch_delete_tensor_object) delete_tensor;
  decltype(&aoti_torch_get_data_ptr) get_data;
  decltype(&aoti_torch_get_strides) get_strides;

 private:
  NBodyTorch();
};

// while it lives, PyTorch uses one thread, because MPI is what runs in parallel. A program that
// uses LAMMPS as a library may use PyTorch too, and gets its threads back

class NBodyOneThread {
 public:
  NBodyOneThread() : before(NBodyTorch::get().get_num_threads())
  {
    if (before != 1) NBodyTorch::get().set_num_threads(1);
  }
  ~NBodyOneThread()
  {
    if (before != 1) NBodyTorch::get().set_num_threads(before);
  }
  NBodyOneThread(const NBodyOneThread &) = delete;
  NBodyOneThread &operator=(const NBodyOneThread &) = delete;

 private:
  const int before;
};

}    // namespace LAMMPS_NS

#endif
