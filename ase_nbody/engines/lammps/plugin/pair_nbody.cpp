/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS
------------------------------------------------------------------------- */

#include "pair_nbody.h"

#include "nbody_block.h"
#include "nbody_network.h"
#include "nbody_states.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "modify.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

PairNBody::PairNBody(LAMMPS *lmp) : Pair(lmp), commlevel(0), laststep(-1)
{
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;    // the virial is summed over edges
  centroidstressflag = CENTROID_NOTAVAIL;
  unit_convert_flag = 0;

  at::set_num_threads(1);    // MPI is what runs in parallel
}

/* ---------------------------------------------------------------------- */

PairNBody::~PairNBody()
{
  if (copymode) return;
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }
}

/* ---------------------------------------------------------------------- */

void PairNBody::allocate()
{
  allocated = 1;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  map = new int[n];
}

/* ---------------------------------------------------------------------- */

void PairNBody::settings(int narg, char ** /*arg*/)
{
  if (narg != 0) error->all(FLERR, "Pair style nbody takes no arguments");
}

/* ---------------------------------------------------------------------- */

void PairNBody::coeff(int narg, char **arg)
{
  if (narg < 4)
    error->all(FLERR,
               "Pair style nbody needs pair_coeff * * FILE and one element, or NULL, for each "
               "atom type");
  if (!allocated) allocate();

  // the elements of the atom types, counted in the order of the model file

  map_element2type(narg - 3, arg + 3);
  read_file(arg[2]);
  const auto &species = network->species;
  speciesof.assign(atom->ntypes + 1, -1);
  for (int itype = 1; itype <= atom->ntypes; itype++) {
    if (map[itype] < 0) continue;
    const std::string element = elements[map[itype]];
    const auto found = std::find(species.begin(), species.end(), element);
    if (found == species.end())
      error->all(FLERR, "Element {} in pair_coeff is unknown to model file {}, which has {}",
                 element, arg[2], utils::join_words(species, " "));
    speciesof[itype] = (int) (found - species.begin());
  }
}

/* ---------------------------------------------------------------------- */

void PairNBody::read_file(const std::string &path)
{
  NBodyFile file;
  const std::string fault = file.read(path, world);
  if (!fault.empty()) error->all(FLERR, "{}", fault);
  if (file.torch != NBODY_TORCH)
    error->all(FLERR,
               "Model file {} was exported with PyTorch {}, but this plugin was built with {}: "
               "say \"nbody lammps export\" and \"nbody lammps build\" with the same PyTorch",
               path, file.torch, NBODY_TORCH);

  int right = at::get_cpu_capability() == file.capability, all_right;
  MPI_Allreduce(&right, &all_right, 1, MPI_INT, MPI_MIN, world);
  if (!all_right)
    error->all(FLERR,
               "Model file {} was exported for processors with {}, which not all ranks have "
               "(rank 0 has {}): say \"nbody lammps export\" on a node like those of this run",
               path, file.capability, at::get_cpu_capability());

  std::string problem;
  try {
    network.reset(new NBodyNetwork(std::move(file)));
  } catch (std::exception &e) {
    problem = e.what();
  }
  int failed = !problem.empty(), any_failed;
  MPI_Allreduce(&failed, &any_failed, 1, MPI_INT, MPI_MAX, world);
  if (any_failed)
    error->all(FLERR, "The machine code in {} cannot be loaded: {}", path,
               failed ? problem : "it fails on another rank");

  states.clear();
  for (int n = 0; n < network->nlevels - 1; n++) {
    const auto &level = network->levels[n];
    states.emplace_back(level.components, level.channels, network->is_double);
  }
  slopes = states;
  comm_forward = comm_reverse = 0;
  for (const auto &one : states) comm_forward = std::max(comm_forward, one.doubles());
  comm_reverse = comm_forward;
  block.reset(new NBodyBlock(network->is_double));
  if (network->nlevels == 1) centroidstressflag = CENTROID_AVAIL;
}

/* ---------------------------------------------------------------------- */

void PairNBody::init_style()
{
  check_settings();
  neighbor->add_request(this, NeighConst::REQ_FULL);

  // hybrid styles ask for these sizes before they are known

  force->pair->comm_forward = std::max(force->pair->comm_forward, comm_forward);
  force->pair->comm_reverse = std::max(force->pair->comm_reverse, comm_reverse);
}

/* ---------------------------------------------------------------------- */

void PairNBody::check_settings()
{
  if (strcmp(update->unit_style, "metal") != 0)
    error->all(FLERR, "Pair style nbody works in eV and Angstrom: say \"units metal\", not {}",
               update->unit_style);
  if (!force->newton_pair) error->all(FLERR, "Pair style nbody needs \"newton on\"");
  if (network->nlevels > 1 && !modify->get_compute_by_style("heat/flux").empty())
    error->all(FLERR,
               "The heat flux is known for N-body models of one level only, and this one has {}",
               network->nlevels);

  // such neighbors are not even in the neighbor list

  if (atom->molecular != Atom::ATOMIC && atom->nbonds > 0)
    for (int k = 1; k <= 3; k++)
      if (force->special_lj[k] == 0.0 && force->special_coul[k] == 0.0)
        error->all(FLERR,
                   "Pair style nbody needs all neighbors, bonded ones too: say "
                   "\"special_bonds lj/coul 1.0 1.0 1.0\"");
  if (neighbor->exclude && comm->me == 0)
    error->warning(FLERR, "Pair style nbody does not see pairs that neigh_modify excludes");
}

/* ---------------------------------------------------------------------- */

double PairNBody::init_one(int i, int j)
{
  if (setflag[i][j] == 0) error->all(FLERR, "All pair coeffs are not set");
  return network->cutoff;
}

/* ---------------------------------------------------------------------- */

void PairNBody::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  find_parts();
  if (network->members > 1)
    fmember.assign((size_t) network->members * (atom->nlocal + atom->nghost) * 3, 0.0);
  laststep = update->ntimestep;

  try {
    for (int member = 0; member < network->members; member++) {
      climb(member);
      descend(member);
    }
  } catch (std::exception &e) {
    error->one(FLERR, "Pair style nbody: {}", e.what());
  }
}

/* ----------------------------------------------------------------------
   which atoms are centers of parts, and where the states of those are that the level above
   needs. The composition alone decides this
------------------------------------------------------------------------- */

void PairNBody::find_parts()
{
  const int nall = atom->nlocal + atom->nghost, nlevels = network->nlevels;
  const int *const type = atom->type;
  const auto &levels = network->levels;

  parts.resize(nlevels);
  rowof.resize(nlevels);
  nrows.assign(nlevels, 0);
  for (int n = 0; n < nlevels; n++) {
    parts[n].clear();
    for (int ii = 0; ii < list->inum; ii++) {
      const int i = list->ilist[ii], s = speciesof[type[i]];
      if (s >= 0 && levels[n].parts[s]) parts[n].push_back(i);
    }
    rowof[n].assign(n < nlevels - 1 ? nall : 0, -1);
    for (size_t i = 0; i < rowof[n].size(); i++) {
      const int s = speciesof[type[i]];
      if (s >= 0 && levels[n].parts[s] && (levels[n + 1].parts[s] || levels[n + 1].children[s]))
        rowof[n][i] = nrows[n]++;
    }
  }
}

/* ----------------------------------------------------------------------
   up the levels: states of all parts that the last level needs
------------------------------------------------------------------------- */

void PairNBody::climb(int member)
{
  for (int n = 0; n < network->nlevels - 1; n++) {
    states[n].resize(nrows[n]);
    std::vector<int> needed, rows;
    for (int i : parts[n])
      if (rowof[n][i] >= 0) needed.push_back(i);
    for (size_t first = 0; first < needed.size(); first += network->levels[n].block) {
      build_block(n, needed, (int) first);
      const NBodyResult found = network->up(member, n, *block, n ? &states[n - 1] : nullptr);
      rows.clear();
      for (int i : block->part) rows.push_back(rowof[n][i]);
      states[n].scatter(rows.data(), (int) rows.size(), found, false);
    }
    commlevel = n;
    comm->forward_comm(this, states[n].doubles());
  }
}

/* ----------------------------------------------------------------------
   down the levels: energies, forces, and derivatives with respect to the states below
------------------------------------------------------------------------- */

void PairNBody::descend(int member)
{
  for (int n = network->nlevels - 1; n >= 0; n--) {
    const bool last = n == network->nlevels - 1;
    if (n > 0) slopes[n - 1].resize(nrows[n - 1]);
    std::vector<int> rows;
    for (size_t first = 0; first < parts[n].size(); first += network->levels[n].block) {
      build_block(n, parts[n], (int) first);
      rows.assign(block->nparts, -1);
      if (!last)
        for (int p = 0; p < block->nreal; p++) rows[p] = rowof[n][block->part[p]];
      const auto found = network->down(member, n, *block, n ? &states[n - 1] : nullptr,
                                       last ? nullptr : &slopes[n], rows);
      if (eflag_either) tally_energies(found[0]);
      tally_forces(found[1], member);
      if (n > 0) slopes[n - 1].scatter(block->rows.data(), block->nrows, found[2], true);
    }
    if (n > 0) {
      commlevel = n - 1;
      comm->reverse_comm(this, slopes[n - 1].doubles());
    }
  }
  if (!eflag_either || member > 0) return;

  // energies of isolated atoms, once

  for (int ii = 0; ii < list->inum; ii++) {
    const int i = list->ilist[ii], s = speciesof[atom->type[i]];
    if (s < 0) continue;
    if (eflag_global) eng_vdwl += network->isolated[s];
    if (eflag_atom) eatom[i] += network->isolated[s];
  }
}

/* ---------------------------------------------------------------------- */

void PairNBody::build_block(int n, const std::vector<int> &centers, int first)
{
  const auto &level = network->levels[n];
  const NBodyAtoms atoms = {atom->x, atom->type, speciesof.data(), list->numneigh,
                            list->firstneigh};
  const int count = std::min(level.block, (int) centers.size() - first);
  if (n == 0)
    block->build(level, atoms, &centers[first], count);
  else
    block->build(level, atoms, &centers[first], count, rowof[n - 1]);
}

/* ---------------------------------------------------------------------- */

void PairNBody::tally_energies(const NBodyResult &energies)
{
  const double share = 1.0 / network->members;
  for (int p = 0; p < block->nreal; p++) {
    const int64_t place = p * energies.strides[0];
    const double energy = share *
        (network->is_double ? ((const double *) energies.data)[place]
                            : ((const float *) energies.data)[place]);
    if (eflag_global) eng_vdwl += energy;
    if (eflag_atom) eatom[block->part[p]] += energy;
  }
}

/* ----------------------------------------------------------------------
   with g_ij = dE/dr_ij: F_i += g_ij, F_j -= g_ij, and either end has half of the virial
   - r_ij g_ij. In a model of one level, energy flows to the child j, so that the centroid
   virial of j has all of it
------------------------------------------------------------------------- */

void PairNBody::tally_forces(const NBodyResult &gradient, int member)
{
  const double share = 1.0 / network->members;
  double **const f = atom->f;
  double *const fm = network->members > 1
      ? fmember.data() + (size_t) member * (atom->nlocal + atom->nghost) * 3
      : nullptr;

  block->edges(gradient, [&](int i, int j, const double *r, const double *g) {
    for (int a = 0; a < 3; a++) {
      f[i][a] += share * g[a];
      f[j][a] -= share * g[a];
    }
    if (fm)
      for (int a = 0; a < 3; a++) {
        fm[3 * i + a] += g[a];
        fm[3 * j + a] -= g[a];
      }
    if (!vflag_either) return;

    const double v[6] = {-share * r[0] * g[0],
                         -share * r[1] * g[1],
                         -share * r[2] * g[2],
                         -share * 0.5 * (r[0] * g[1] + r[1] * g[0]),
                         -share * 0.5 * (r[0] * g[2] + r[2] * g[0]),
                         -share * 0.5 * (r[1] * g[2] + r[2] * g[1])};
    if (vflag_global)
      for (int k = 0; k < 6; k++) virial[k] += v[k];
    if (vflag_atom)
      for (int k = 0; k < 6; k++) {
        vatom[i][k] += 0.5 * v[k];
        vatom[j][k] += 0.5 * v[k];
      }
    if (cvflag_atom) {
      static constexpr int first[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2};
      static constexpr int second[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};
      for (int k = 0; k < 9; k++) cvatom[j][k] -= share * r[first[k]] * g[second[k]];
    }
  });
}

/* ----------------------------------------------------------------------
   only atoms whose parts the level above needs have something to say, and both sides know
   the types of these atoms
------------------------------------------------------------------------- */

int PairNBody::pack_forward_comm(int n, int *list, double *buf, int /*pbc_flag*/, int * /*pbc*/)
{
  const auto &rows = rowof[commlevel];
  const auto &level = states[commlevel];
  int m = 0;
  for (int k = 0; k < n; k++) {
    const int row = rows[list[k]];
    if (row < 0) continue;
    level.pack(row, &buf[m]);
    m += level.doubles();
  }
  return m;
}

void PairNBody::unpack_forward_comm(int n, int first, double *buf)
{
  const auto &rows = rowof[commlevel];
  auto &level = states[commlevel];
  int m = 0;
  for (int i = first; i < first + n; i++) {
    if (rows[i] < 0) continue;
    level.unpack(rows[i], &buf[m], false);
    m += level.doubles();
  }
}

int PairNBody::pack_reverse_comm(int n, int first, double *buf)
{
  const auto &rows = rowof[commlevel];
  const auto &level = slopes[commlevel];
  int m = 0;
  for (int i = first; i < first + n; i++) {
    if (rows[i] < 0) continue;
    level.pack(rows[i], &buf[m]);
    m += level.doubles();
  }
  return m;
}

void PairNBody::unpack_reverse_comm(int n, int *list, double *buf)
{
  const auto &rows = rowof[commlevel];
  auto &level = slopes[commlevel];
  int m = 0;
  for (int k = 0; k < n; k++) {
    const int row = rows[list[k]];
    if (row < 0) continue;
    level.unpack(row, &buf[m], true);
    m += level.doubles();
  }
}

/* ---------------------------------------------------------------------- */

int PairNBody::members() const
{
  return network ? network->members : 0;
}

/* ---------------------------------------------------------------------- */

double PairNBody::memory_usage()
{
  double bytes = Pair::memory_usage();
  if (network) bytes += network->memory_usage();
  for (const auto &one : states) bytes += one.memory_usage();
  for (const auto &one : slopes) bytes += one.memory_usage();
  for (const auto &one : rowof) bytes += (double) one.capacity() * sizeof(int);
  bytes += (double) fmember.capacity() * sizeof(double);
  return bytes;
}
