/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS

   A block: some parts of a level with the edges to their children, as tables that the
   machine code takes. Tables are padded to at least two rows and columns, which the code needs.
------------------------------------------------------------------------- */

#ifndef LMP_NBODY_BLOCK_H
#define LMP_NBODY_BLOCK_H

#include "nbody_code.h"
#include "nbody_file.h"

#include <cstdint>
#include <vector>

namespace LAMMPS_NS {

// what a block needs to know about the atoms

struct NBodyAtoms {
  double **x;
  const int *type, *map;    // map gives the species of each atom type, -1 for none
  const int *numneigh;
  int **firstneigh;

  int species(int i) const { return map[type[i]]; }
};

class NBodyBlock {
 public:
  // sizes of the tables: parts, edges of a part, rows of the level below, parents of a row

  int nparts, width, nrows, nparents;

  int nreal;                   // parts that are no padding
  std::vector<int> part;       // atom at the center of each part
  std::vector<int> rows;       // row of each part of the level below in its states, or -1

  explicit NBodyBlock(bool is_double);

  // the lowest level, whose children are atoms

  void build(const NBodyLevelInfo &level, const NBodyAtoms &atoms, const int *parts, int n);

  // a level above it. rowof gives the row of each atom's part in the states of the level below

  void build(const NBodyLevelInfo &level, const NBodyAtoms &atoms, const int *parts, int n,
             const std::vector<int> &rowof);

  void arguments(NBodyArguments &given) const;
  void arguments(NBodyArguments &given, const NBodyLevelInfo &below,
                 const std::vector<char> &states) const;

  // for each real edge f(part, child, r_ij, dE/dr_ij), from what the step down gave

  template <typename FUNCTION> void edges(const NBodyResult &gradient, FUNCTION f) const;

  // for each real edge f(part, child, r_ij)

  template <typename FUNCTION> void pairs(FUNCTION f) const;

 private:
  struct Edge {
    int child;         // atom at the center of the child
    double delta[3];
  };

  const bool is_double;
  std::vector<Edge> edge;                  // the real edges, part by part
  std::vector<int> first;                  // edges of part p: first[p] to first[p + 1]
  std::vector<char> vectors;               // (3, nparts, width) in the network's dtype
  std::vector<int64_t> center, species;    // (nparts), (nparts, width)
  std::vector<int64_t> own, child;         // (nparts), (nparts, width)
  std::vector<int64_t> parents;            // (nparents, nrows)
  std::vector<uint8_t> parents_mask;
  std::vector<int> placeof;    // by row of the level below: its place in rows, or -1

  void find_edges(const NBodyLevelInfo &level, const NBodyAtoms &atoms, const int *parts, int n,
                  const std::vector<int> *rowof);
  template <typename REAL> void fill_vectors(double padding);
  void fill_species(const NBodyAtoms &atoms);
  void fill_rows(const std::vector<int> &rowof);
  void fill_parents();
};

/* ---------------------------------------------------------------------- */

template <typename FUNCTION>
void NBodyBlock::edges(const NBodyResult &gradient, FUNCTION f) const
{
  const int64_t *s = gradient.strides;
  for (int p = 0; p < nreal; p++)
    for (int k = first[p]; k < first[p + 1]; k++) {
      double slope[3];
      for (int axis = 0; axis < 3; axis++) {
        const int64_t place = axis * s[0] + p * s[1] + (k - first[p]) * s[2];
        slope[axis] = is_double ? ((const double *) gradient.data)[place]
                                : ((const float *) gradient.data)[place];
      }
      f(part[p], edge[k].child, edge[k].delta, slope);
    }
}

template <typename FUNCTION> void NBodyBlock::pairs(FUNCTION f) const
{
  for (int p = 0; p < nreal; p++)
    for (int k = first[p]; k < first[p + 1]; k++) f(part[p], edge[k].child, edge[k].delta);
}

}    // namespace LAMMPS_NS

#endif
