/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS
------------------------------------------------------------------------- */

#include "nbody_block.h"

#include "lmptype.h"

#include <algorithm>

using namespace LAMMPS_NS;

static constexpr int MINSIZE = 2;    // of each axis of a table: the code was compiled for that

/* ---------------------------------------------------------------------- */

NBodyBlock::NBodyBlock(bool _is_double) :
    nparts(0), width(0), nrows(0), nparents(0), nreal(0), is_double(_is_double)
{
}

/* ---------------------------------------------------------------------- */

void NBodyBlock::build(const NBodyLevelInfo &level, const NBodyAtoms &atoms, const int *parts,
                       int n)
{
  find_edges(level, atoms, parts, n, nullptr);
  fill_species(atoms);
}

void NBodyBlock::build(const NBodyLevelInfo &level, const NBodyAtoms &atoms, const int *parts,
                       int n, const std::vector<int> &rowof)
{
  find_edges(level, atoms, parts, n, &rowof);
  fill_species(atoms);
  fill_rows(rowof);
  fill_parents();
}

/* ----------------------------------------------------------------------
   children within the radius. The neighbor list reaches farther by the skin
------------------------------------------------------------------------- */

void NBodyBlock::find_edges(const NBodyLevelInfo &level, const NBodyAtoms &atoms,
                            const int *parts, int n, const std::vector<int> *rowof)
{
  const double radiussq = level.radius * level.radius;
  part.assign(parts, parts + n);
  edge.clear();
  first.assign(1, 0);
  width = MINSIZE;
  for (int i : part) {
    const double *const xi = atoms.x[i];
    const int *const neighbors = atoms.firstneigh[i];
    const int nneighbors = atoms.numneigh[i];
    for (int jj = 0; jj < nneighbors; jj++) {
      const int j = neighbors[jj] & NEIGHMASK;
      const double *const xj = atoms.x[j];
      const Edge found = {j, {xj[0] - xi[0], xj[1] - xi[1], xj[2] - xi[2]}};
      const double *const d = found.delta;
      if (d[0] * d[0] + d[1] * d[1] + d[2] * d[2] >= radiussq) continue;
      const int s = atoms.species(j);
      if (s < 0 || !level.children[s]) continue;
      if (rowof && (*rowof)[j] < 0) continue;
      edge.push_back(found);
    }
    first.push_back((int) edge.size());
    width = std::max(width, first.back() - first[first.size() - 2]);
  }
  nreal = n;
  nparts = std::max(n, MINSIZE);

  // padded edges are longer than the radius, where all functions are zero

  if (is_double)
    fill_vectors<double>(2.0 * level.radius);
  else
    fill_vectors<float>(2.0 * level.radius);
}

/* ---------------------------------------------------------------------- */

template <typename REAL> void NBodyBlock::fill_vectors(double padding)
{
  const size_t plane = (size_t) nparts * width;
  vectors.resize(3 * plane * sizeof(REAL));
  REAL *const to = (REAL *) vectors.data();
  std::fill_n(to, 3 * plane, (REAL) padding);
  for (int p = 0; p < nreal; p++)
    for (int k = first[p]; k < first[p + 1]; k++)
      for (int axis = 0; axis < 3; axis++)
        to[axis * plane + (size_t) p * width + k - first[p]] = (REAL) edge[k].delta[axis];
}

/* ---------------------------------------------------------------------- */

void NBodyBlock::fill_species(const NBodyAtoms &atoms)
{
  center.assign(nparts, 0);
  species.assign((size_t) nparts * width, 0);
  for (int p = 0; p < nreal; p++) {
    center[p] = atoms.species(part[p]);
    for (int k = first[p]; k < first[p + 1]; k++)
      species[(size_t) p * width + k - first[p]] = atoms.species(edge[k].child);
  }
}

/* ----------------------------------------------------------------------
   the rows of the level below that the block needs: those of its parts, then those of their
   children. Padded parts own a row of zeros
------------------------------------------------------------------------- */

void NBodyBlock::fill_rows(const std::vector<int> &rowof)
{
  rows.clear();
  auto place = [&](int atom) {
    const int row = rowof[atom];
    if (row >= (int) placeof.size()) placeof.resize(row + 1, -1);
    if (placeof[row] < 0) {
      placeof[row] = (int) rows.size();
      rows.push_back(row);
    }
    return placeof[row];
  };

  own.assign(nparts, 0);
  child.assign((size_t) nparts * width, 0);
  for (int p = 0; p < nreal; p++) own[p] = place(part[p]);
  for (int p = 0; p < nreal; p++)
    for (int k = first[p]; k < first[p + 1]; k++)
      child[(size_t) p * width + k - first[p]] = place(edge[k].child);
  for (int row : rows) placeof[row] = -1;    // ready for the next block

  while ((int) rows.size() < MINSIZE || (nreal < nparts && rows.back() >= 0)) rows.push_back(-1);
  nrows = (int) rows.size();
  for (int p = nreal; p < nparts; p++) own[p] = nrows - 1;
}

/* ---------------------------------------------------------------------- */

void NBodyBlock::fill_parents()
{
  std::vector<int> count(nrows, 0);
  for (int p = 0; p < nreal; p++)
    for (int k = 0; k < first[p + 1] - first[p]; k++) count[child[(size_t) p * width + k]]++;
  nparents = std::max(MINSIZE, *std::max_element(count.begin(), count.end()));

  parents.assign((size_t) nparents * nrows, 0);
  parents_mask.assign((size_t) nparents * nrows, 0);
  std::fill(count.begin(), count.end(), 0);
  for (int p = 0; p < nreal; p++)
    for (int k = 0; k < first[p + 1] - first[p]; k++) {
      const int64_t place = (int64_t) p * width + k, row = child[place];
      const size_t entry = (size_t) count[row]++ * nrows + row;
      parents[entry] = place;
      parents_mask[entry] = 1;
    }
}

/* ---------------------------------------------------------------------- */

void NBodyBlock::arguments(NBodyArguments &given) const
{
  given.real(vectors.data(), {3, nparts, width});
  given.index(center.data(), {nparts});
  given.index(species.data(), {nparts, width});
}

void NBodyBlock::arguments(NBodyArguments &given, const NBodyLevelInfo &below,
                           const std::vector<char> &states) const
{
  arguments(given);
  given.index(own.data(), {nparts});
  given.index(child.data(), {nparts, width});
  given.index(parents.data(), {nparents, nrows});
  given.flag(parents_mask.data(), {nparents, nrows});
  given.real(states.data(), {below.components, nrows, below.channels});
}
