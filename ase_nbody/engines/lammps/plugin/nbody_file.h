/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS

   The file that "nbody lammps export" writes: a header of text lines, then weights and
   machine code. Rank 0 reads it, all ranks get it.
------------------------------------------------------------------------- */

#ifndef LMP_NBODY_FILE_H
#define LMP_NBODY_FILE_H

#include <mpi.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace LAMMPS_NS {

// one level of the hierarchy, the lowest first

struct NBodyLevelInfo {
  double radius;                 // distance at which the weight of a child has faded to zero
  std::vector<bool> parts;       // by species: whether its atoms are centers of parts
  std::vector<bool> children;    // by species: whether parts around its atoms may be children
  int components, channels;      // of the states of the parts
  int block;                     // parts that are evaluated in one call
};

class NBodyFile {
 public:
  std::string torch, capability, dtype;    // what the machine code was compiled for
  int members;                             // networks of the committee
  std::vector<std::string> species;
  std::vector<double> isolated;            // energies of isolated atoms by species
  std::vector<NBodyLevelInfo> levels;
  std::vector<std::vector<int64_t>> shapes;           // of the weights
  std::vector<std::string> weights;                   // of each member, all weights in order
  std::map<std::string, std::string> code;            // shared library of each step

  // collective. Returns an empty string, or a sentence that says what is wrong

  std::string read(const std::string &path, MPI_Comm world);

 private:
  std::string parse(const std::string &content);
};

}    // namespace LAMMPS_NS

#endif
