/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS

   The networks of a committee: their weights, and the machine code that they share.
------------------------------------------------------------------------- */

#ifndef LMP_NBODY_NETWORK_H
#define LMP_NBODY_NETWORK_H

#include "nbody_block.h"
#include "nbody_code.h"
#include "nbody_file.h"
#include "nbody_states.h"

#include <memory>
#include <string>
#include <vector>

namespace LAMMPS_NS {

class NBodyNetwork {
 public:
  // throws std::runtime_error

  explicit NBodyNetwork(NBodyFile &&file);

  int members, nlevels;
  bool is_double;
  double cutoff;    // largest radius
  std::vector<std::string> species;
  std::vector<double> isolated;
  std::vector<NBodyLevelInfo> levels;

  // states of the parts of a block, from those of the level below (not at the lowest level).
  // Throws std::runtime_error, as down() does

  NBodyResult up(int member, int n, const NBodyBlock &block, const NBodyStates *below);

  // energies, dE/dr_ij and, above the lowest level, dE/dpsi of the rows of a block. sloperows
  // are the rows of the parts in slopes, which hold dE/dpsi of the parts; none at the last level

  std::vector<NBodyResult> down(int member, int n, const NBodyBlock &block,
                                const NBodyStates *below, const NBodyStates *slopes,
                                const std::vector<int> &sloperows);

  double memory_usage() const;

 private:
  std::vector<std::unique_ptr<NBodyCode>> code_up, code_down;
  std::vector<std::vector<int64_t>> shapes;
  std::vector<std::string> weights;
  std::vector<char> rows, slope;    // of the block that is being evaluated

  void give(NBodyArguments &given, int member, int n, const NBodyBlock &block,
            const NBodyStates *below);
};

}    // namespace LAMMPS_NS

#endif
