/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS

   States of the parts of a level, or derivatives of the energy with respect to them: one row
   of components times channels for each part that the level above needs, own ones and ghosts.
   The numbers have the network's dtype.
------------------------------------------------------------------------- */

#ifndef LMP_NBODY_STATES_H
#define LMP_NBODY_STATES_H

#include "nbody_code.h"

#include <vector>

namespace LAMMPS_NS {

class NBodyStates {
 public:
  NBodyStates(int components, int channels, bool is_double);

  void resize(int nrows);    // all rows zero
  int doubles() const;       // size of a row in a message

  // rows as a tensor (components, n, channels) and back; row -1 stands for zeros

  void gather(const int *rows, int n, std::vector<char> &tensor) const;
  void scatter(const int *rows, int n, const NBodyResult &tensor, bool add);

  // one row in a message

  void pack(int row, double *buf) const;
  void unpack(int row, const double *buf, bool add);

  double memory_usage() const { return (double) data.capacity(); }

 private:
  int components, channels;
  bool is_double;
  size_t bytes;    // of a number
  std::vector<char> data;

  char *at(int row, int component)
  {
    return data.data() + ((size_t) row * components + component) * channels * bytes;
  }
  const char *at(int row, int component) const
  {
    return const_cast<NBodyStates *>(this)->at(row, component);
  }
  template <typename REAL>
  void scatter(const int *rows, int n, const NBodyResult &tensor, bool add);
};

}    // namespace LAMMPS_NS

#endif
