/* -*- c++ -*- ----------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS

   compute nbody/spread: how far the networks of a committee disagree on the force on each atom
------------------------------------------------------------------------- */

#ifndef LMP_COMPUTE_NBODY_SPREAD_H
#define LMP_COMPUTE_NBODY_SPREAD_H

#include "compute.h"

#include <vector>

namespace LAMMPS_NS {

class ComputeNBodySpread : public Compute {
 public:
  ComputeNBodySpread(class LAMMPS *, int, char **);
  ~ComputeNBodySpread() override;

  void init() override;
  void compute_peratom() override;
  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;
  double memory_usage() override;

 private:
  class PairNBody *pair;
  int nmax, nall;
  std::vector<double> forces;    // (member, atom, axis), of own atoms and ghosts

  double &at(int member, int i, int axis)
  {
    return forces[((size_t) member * nall + i) * 3 + axis];
  }
};

}    // namespace LAMMPS_NS

#endif
