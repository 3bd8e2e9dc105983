"""Write the paper's tables, then the paper: ``build/paper/paper.pdf``. See ``make paper``."""

import typst
from tables import ROOT, main

if __name__ == "__main__":
    main()
    output = ROOT / "build" / "paper" / "paper.pdf"
    typst.compile(ROOT / "paper" / "main.typ", output=output, root=ROOT)
    print(f"The paper: {output.relative_to(ROOT)}")
