from chatkit_postgres.cli import main

if __name__ == "__main__":
    main()
